import pytest

from fed_gswgan.config import Config, DataSettings
from fed_gswgan.data.partition import partitions_of
from fed_gswgan.data.registry import open_source

DEVICES = {"dataset": "devices", "max-clients": 3, "evaluation-samples": 0}


def test_the_server_knows_the_classes_and_how_many_devices_to_wait_for():
    config = Config.from_table(DEVICES | {"classes": "digits"})
    source = open_source(config.data)
    assert source.class_names == tuple("0123456789")
    assert len(partitions_of(source, config.data)) == 3


def test_it_has_no_image_of_anybody():
    source = open_source(DataSettings(dataset="devices", max_clients=1))
    with pytest.raises(ValueError, match="on its device alone"):
        source.shard("device-0")
    with pytest.raises(ValueError, match="no image is held out"):
        source.held_out()


def test_without_a_number_of_devices_it_is_refused():
    with pytest.raises(ValueError, match="max-clients=0 must be the number of devices"):
        Config.from_table(DEVICES | {"max-clients": 0})


def test_an_evaluation_that_would_find_no_image_is_refused_before_the_run():
    with pytest.raises(ValueError, match="evaluation-samples=100 must be 0"):
        Config.from_table(DEVICES | {"evaluation-samples": 100})
