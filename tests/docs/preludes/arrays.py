"""TensorFlow is no extra of ours."""

left_out = {
    "from splitpipe.integrations.tensorflow import to_tf": (
        "runs by tests/integrations/test_tensorflow.py, where TensorFlow is installed"
    )
}
