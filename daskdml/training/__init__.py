"""Training by batches of rows: which rows, on which rank, and what follows from their gradients.

``schedule`` says which rows form which batch, ``meeting`` brings rows together that belong to one batch and lie on two
ranks, ``rows`` copies them into batches, ``replica`` is what one rank does, ``training`` the loop and the end of an
epoch, ``scoring`` the score of rows that are not trained on. Where rows are on a device, ``device`` is what one rank
does; where the parameters are with a server, ``served``, or row by row ``served_rows``; where the model is cut into
shards, ``sharded`` is that, ``parts`` what outlives its death, ``gathering`` how the caller gets the model. Strategies
(`daskdml.strategies`) come in as objects, and so do objectives and transforms.
"""

from daskdml.training.gathering import Gathering, in_shards
from daskdml.training.parts import is_result
from daskdml.training.rows import Piece, as_trained
from daskdml.training.schedule import Schedule, is_mixable, least_parts
from daskdml.training.served import COEFFICIENTS, INTERCEPTS, Descent
from daskdml.training.served_rows import RowGathering
from daskdml.training.state import TrainingState
from daskdml.training.training import Rates, Training

__all__ = [
    "COEFFICIENTS", "INTERCEPTS", "Descent", "Gathering", "Piece", "Rates", "RowGathering", "Schedule", "Training",
    "TrainingState", "as_trained", "in_shards", "is_mixable", "is_result", "least_parts",
]  # fmt: skip
