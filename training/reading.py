"""What the samples of a stage are read from: shards or features, in a folder or in a store."""

from __future__ import annotations

import logging

from schemas.training import TrainingRecipe
from training.data.cache import ShardCache
from training.data.captions import cut_of
from training.data.reader import ShardReader
from training.data.source import Source
from training.features import StageFeatures
from training.parallel.distributed import World
from training.stages import StageData, copies_of

log = logging.getLogger(__name__)


def source_of(recipe: TrainingRecipe, data: StageData, features: StageFeatures, steps: range, here: World) -> Source:
    """What the samples of some steps are read from."""
    shards, copies = recipe.dataset_folder / "shards", copies_of(recipe)
    reader = ShardReader(shards, data.rows, cut_of(recipe), copies)
    cache = None
    if copies is not None and recipe.data.cache_gb:
        folders = [found for found in features.tar_folders(reader.folder) if found.is_relative_to(copies.folder)]
        names, samples = list(data.rows.shards()), data.rows.whole.shards()
        if recipe.data.lanes % here.node[1]:
            said = "data.lanes is %d on %d machines, so they fetch shards of each other's; a new run may set a multiple"
            log.info(said, recipe.data.lanes, here.node[1])
        cache = ShardCache(copies, folders, names, samples, data.order, steps, recipe.data.cache_gb * 1e9, here.node)
    return Source(reader, *features.arrays(copies), cache)
