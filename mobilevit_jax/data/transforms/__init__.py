"""From a decoded example to fixed shapes: one module a task, NumPy alone."""
