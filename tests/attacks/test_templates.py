"""Templates with other holes than that of the instruction, wherever one is given."""

import pytest

from embedsmith.errors import SettingsError
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.models.settings import StudentSettings

ODD = ["{foo}", "{", "}", "{0}", "{}", "{instruction.x}", "{instruction!z}", "{instruction:>x}", "none", "{a[b]}"]


@pytest.mark.parametrize("template", ODD)
@pytest.mark.parametrize("settings", [ScoringSettings, StudentSettings])
def test_a_template_with_another_hole_is_refused_when_it_is_parsed(settings, template):
    with pytest.raises(SettingsError, match="no other braces"):
        settings.parse({"template": template}, where="settings")
    assert settings.parse({"template": "Do: {instruction} "}, where="settings").template == "Do: {instruction} "
