from autocompress.core.events import Callback, Event


def test_anything_callable_with_an_event_is_a_callback() -> None:
    heard: list[Event] = []
    callback: Callback = heard.append
    callback(Event(stage="trials", message="trial 0", elapsed_s=1.0))
    assert [event.stage for event in heard] == ["trials"]
    assert heard[0].trials_total is None
