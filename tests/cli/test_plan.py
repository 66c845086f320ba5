import json
from pathlib import Path

from stand_in import FakeApi, invoke


def test_a_dry_run_tells_the_plan_and_searches_nothing(
    api: FakeApi, config: Path, tmp_path: Path
) -> None:
    result = invoke("search", config, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "7 candidates, within 1.2 of the minutes" in " ".join(result.stdout.split())
    assert "search time: about 2 minutes" in result.stdout
    assert not (tmp_path / "study").exists()
    record = json.loads(invoke("search", config, "--dry-run", "--json").stdout)
    assert record["seconds_estimate"] == 120.0
    assert len(api.calls) == 2, "checks, no search"
