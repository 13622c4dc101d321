"""``python -m benchmarks.scale``."""

if __name__ == "__main__":
    from benchmarks.scale.command import main

    raise SystemExit(main())
