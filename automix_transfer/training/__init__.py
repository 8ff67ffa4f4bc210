"""The training loop and what it needs: settings, checkpoints, optimizers, schedules, logs, processes. It
drives any method of `mixing`."""
