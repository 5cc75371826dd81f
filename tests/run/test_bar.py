import sys

from mobilevit_jax.run import bar


def _run():
  with bar.steps(2, 10) as shown:
    shown.update()
    bar.say("a line")
    shown.refresh()


def test_a_terminal_gets_a_bar_and_a_log_the_lines_alone(capsys, monkeypatch):
  _run()
  assert capsys.readouterr() == ("a line\n", "")
  monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
  _run()
  said = capsys.readouterr()
  assert said.out == "a line\n"
  assert " 3/10 " in said.err
