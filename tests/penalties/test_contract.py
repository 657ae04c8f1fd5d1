"""The elastic net and its special cases keep the contract."""

from daskdml.penalties import ElasticNet
from daskdml.testing import PenaltyContract


class TestElasticNet(PenaltyContract):
    def make(self):
        return ElasticNet(l1=0.3, l2=0.7)


class TestRidge(PenaltyContract):
    def make(self):
        return ElasticNet(l2=0.7)


class TestLasso(PenaltyContract):
    def make(self):
        return ElasticNet(l1=0.3)


class TestNone(PenaltyContract):
    def make(self):
        return ElasticNet()


def test_facts():
    assert ElasticNet().is_zero and ElasticNet().smooth
    assert ElasticNet(l2=1.0).smooth and not ElasticNet(l2=1.0).is_zero
    assert not ElasticNet(l1=1.0).smooth and not ElasticNet(l1=1.0).is_zero
