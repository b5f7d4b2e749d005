"""Tables in chunks: Parquet, Arrow, Hugging Face datasets."""
