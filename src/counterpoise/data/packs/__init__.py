"""Packs: a set of images written once into tar shards with an index beside them, read in any order."""
