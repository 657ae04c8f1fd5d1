"""Training by batches of rows: which rows, on which rank, and what follows from their gradients.

``schedule`` says which rows form which batch, ``meeting`` brings rows together that belong to one batch and lie on two
ranks, ``rows`` copies them into batches, ``replica`` is what one rank does, ``training`` the loop and the end of an
epoch, ``scoring`` the score of rows that are not trained on. Strategies (`daskdml.strategies`) come in as objects, and
so do objectives and transforms.
"""

from daskdml.training.rows import Piece, as_trained
from daskdml.training.schedule import Schedule
from daskdml.training.state import TrainingState
from daskdml.training.training import Rates, Training

__all__ = ["Piece", "Rates", "Schedule", "Training", "TrainingState", "as_trained"]
