"""Rows of batches and of their parts, where rooms that do not import each other must agree."""

AUTO_BATCH = 200  # rows of a batch with batch_size="auto", at most: few rows make smaller ones
MICRO_ROWS = 256  # of a micro-batch, about: products of matrices of 128 rows take 2 % longer a row, of 64 rows 8 %
