"""What stood before needs mosaicml-streaming, which has requirements of its own."""

left_out = {
    "from streaming import StreamingDataLoader, StreamingDataset": (
        "runs by tests/integrations/test_migrating.py, where streaming is installed"
    )
}
