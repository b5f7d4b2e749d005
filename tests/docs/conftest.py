"""What pytest leaves alone here: preludes run in programs of their own (``test_blocks``)."""

collect_ignore_glob = ["preludes/*.py"]
