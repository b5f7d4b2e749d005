"""Bytes of others: files at any place of them, whole or compressed."""
