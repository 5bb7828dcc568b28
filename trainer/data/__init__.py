"""Turn shard directories into training samples: selection, packing, mixture."""
