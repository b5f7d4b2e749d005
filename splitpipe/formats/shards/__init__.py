"""Records in shards: tar files of WebDataset, MDS of MosaicML."""
