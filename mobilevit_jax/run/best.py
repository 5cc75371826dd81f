"""The best evaluation so far, and when to stop waiting for a better one."""

import dataclasses


@dataclasses.dataclass
class Best:
  """What a run remembers of its evaluations; saved in its checkpoints.

  Attributes:
    step: of the best evaluation, the first of equals; -1 before any.
    top1: its EMA top-1; -1 before any.
    waited: evaluations since.
  """

  step: int = -1
  top1: float = -1.0
  waited: int = 0

  def add(self, step: int, top1: float) -> None:
    """Takes the next evaluation."""
    if top1 > self.top1:
      self.step, self.top1, self.waited = step, top1, 0
    else:
      self.waited += 1

  def is_over(self, patience: int | None) -> bool:
    """Whether `patience` evaluations brought nothing better; None: never."""
    return patience is not None and self.waited >= patience
