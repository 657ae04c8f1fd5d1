"""Any input as row blocks: the only room that knows kinds of tables, and the only place where rows are counted."""

from daskdml.data.blocks import Block, Chunk, UnevenChunks, count_blocks, rows_per_block
from daskdml.data.features import check_features, check_not_empty, feature_names
from daskdml.data.kinds import is_dask, is_frame, refuse_unread
from daskdml.data.matrix import as_matrix, check_finite, side_by_side
from daskdml.data.partitioned import Partitioned, whole_rows
from daskdml.data.rows import apply_rows
from daskdml.data.targets import TargetSummary, as_target, as_vector, as_weight, encode_classes, target_summary

__all__ = [
    "Block",
    "Chunk",
    "Partitioned",
    "TargetSummary",
    "UnevenChunks",
    "apply_rows",
    "as_matrix",
    "as_target",
    "as_vector",
    "as_weight",
    "check_features",
    "check_finite",
    "check_not_empty",
    "count_blocks",
    "encode_classes",
    "feature_names",
    "is_dask",
    "is_frame",
    "refuse_unread",
    "rows_per_block",
    "side_by_side",
    "target_summary",
    "whole_rows",
]
