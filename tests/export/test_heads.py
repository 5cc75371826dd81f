"""Which heads are written."""

from mobilevit_jax import create_model
from mobilevit_jax.export import __main__ as command
from mobilevit_jax.weights import save_weights


def test_a_head_without_a_writer_is_refused_at_once(tmp_path, capsys):
  """Its crop and its metadata would else be a classifier's."""
  net = create_model("mobilevit_xxs", "ssdlite", num_classes=2)
  save_weights(net, tmp_path / "w.safetensors")
  out = tmp_path / "w.zip"
  args = [f"--weights={tmp_path / 'w.safetensors'}", f"--out={out}"]
  assert command.main([*args, "--format=stablehlo"]) == 1
  message = capsys.readouterr().err
  assert "head 'ssdlite', and files are written of classifier" in message
  assert not out.exists()
