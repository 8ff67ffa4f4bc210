"""``automix-transfer evaluate``."""

from automix_transfer.errors import run_old_module


def main() -> int | None:
    from automix_transfer.evaluation.cli import main  # takes seconds, in which a signal may come

    return main()


if __name__ == "__main__":
    run_old_module("evaluate", main)
