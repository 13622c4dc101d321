"""``python -m benchmarks``. Kept light: every measuring process imports this module first."""

if __name__ == "__main__":
    from benchmarks.command import main

    raise SystemExit(main())
