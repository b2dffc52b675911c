"""What the log says of loaded weights."""

import logging

import pytest

from align_detr.checkpoint.report import LoadReport


def test_a_backbone_that_is_not_whole_is_named_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    for new, expected in (("backbone.b", True), ("head.b", False)):
        caplog.clear()
        report = LoadReport("a.pth", ["backbone.a"], [new], [], {}, share=0.5, fits=1)
        with caplog.at_level(logging.WARNING):
            report.log()
        assert ("take the config of the file, as Detector(weights='a.pth').train(DATA)" in caplog.text) == expected
