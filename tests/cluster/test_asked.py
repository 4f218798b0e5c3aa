"""What `--cluster` says, and what is refused before anything starts."""

import pytest

from embedsmith.cluster.asked import parsed
from embedsmith.cluster.running import on_cluster, running_cluster
from embedsmith.errors import SettingsError


@pytest.mark.parametrize(
    "name", ["", "local:", "local:0", "local:2000", "locals", "10.0.0.7", "host:0", "a b:1", "host:x"]
)
def test_what_names_no_cluster_is_refused_with_what_would(name):
    with pytest.raises(SettingsError, match="no cluster") as caught:
        parsed(name)
    assert "local:N" in caught.value.hint


def test_rays_client_port_is_refused_with_the_remedy():
    with pytest.raises(SettingsError, match="client port") as caught:
        parsed("ray://head:10001")
    assert "auto" in caught.value.hint


def test_without_a_name_this_process_works():
    with on_cluster(None):
        assert running_cluster() is None
