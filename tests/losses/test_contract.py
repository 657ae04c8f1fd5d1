"""Every loss of the room keeps the contract."""

import pytest

from daskdml import losses
from daskdml.losses import Logistic, Multinomial, Squared
from daskdml.testing import LossContract


class TestLogistic(LossContract):
    def make(self):
        return Logistic()


class TestSquared(LossContract):
    def make(self):
        return Squared()


class TestThreeClasses(LossContract):
    def make(self):
        return Multinomial(3)


class TestTwentyClasses(LossContract):
    def make(self):
        return Multinomial(20)


@pytest.mark.parametrize("name", losses.__all__)
def test_every_loss_is_under_contract(name):
    kept = {type(contract().make()).__name__ for contract in LossContract.__subclasses__()}
    assert name in kept
