"""The machine that a command runs on: where it may write, what it compiles, and what its errors mean."""
