"""Pictures of values by name: an object of the metadata, the data of clients, their evaluations."""

from __future__ import annotations

from fedwaggle.runs.events import (
    CheckpointSaved,
    ClientEvaluated,
    ClientUpdated,
    Event,
    LabelsCounted,
    RoundFinished,
    RoundStarted,
    SiteMeasures,
)
from fedwaggle.runs.report.charts.clients import client_figures
from fedwaggle.runs.report.charts.costs import cost_figures
from fedwaggle.runs.report.charts.fields import drawn_fields, field_figures
from fedwaggle.runs.report.charts.keyed import (
    evaluation_figures,
    keyed_figures,
    partition_figures,
)
from fedwaggle.runs.report.story import RunStory, tell
from fedwaggle.runs.report.tables import tables


def update(number: int, client: str, metadata: dict[str, object]) -> Event:
    return ClientUpdated(
        round=number,
        client=client,
        node_id=client,
        num_examples=1,
        metrics={},
        metadata=metadata,
        seconds=1.0,
        bytes=1,
    )


def story_of(*events: Event) -> RunStory:
    return tell(events)


def recall(*values: float) -> dict[str, object]:
    return {"recall": dict(zip(("class_10", "class_2", "class_1"), values, strict=True))}


def test_an_object_by_name_is_a_map_of_its_keys_and_no_history() -> None:
    """Keys that count no steps are no time: three classes, two rounds, medians of two clients."""
    story = story_of(
        update(1, "a", recall(0.25, 0.5, 0.0)),
        update(1, "b", recall(0.75, 0.5, 1.0)),
        update(2, "a", recall(1.0, 1.0, 1.0)),
    )
    assert story.fields.histories == {}
    (figure,) = keyed_figures(story)
    (trace,) = figure.traces
    assert trace["type"] == "heatmap"
    assert trace["x"] == [1, 2]
    assert trace["y"] == ["class_1", "class_2", "class_10"]
    assert trace["z"] == [[0.5, 1.0], [0.5, 1.0], [0.5, 1.0]]
    assert field_figures(story, drawn_fields(story)) == []


def test_keys_that_count_steps_are_a_history() -> None:
    story = story_of(update(1, "a", {"losses": {"epoch_2": 0.5, "epoch_1": 1.0}}))
    assert story.fields.histories == {"losses": {0: [1.0, 0.5]}}
    assert keyed_figures(story) == []


def test_an_object_of_two_numbers_has_a_picture_of_each() -> None:
    story = story_of(update(1, "a", {"gpu": {"heat": 71, "watts": 250}}))
    assert keyed_figures(story) == []
    assert len(field_figures(story, drawn_fields(story))) == 2


def test_the_data_of_clients_is_a_map_of_classes() -> None:
    """Client 10 comes behind client 2; a class that a client lacks is 0."""
    counts = {"10": {"0": 3}, "2": {"0": 1, "1": 2}}
    (figure,) = partition_figures(story_of(LabelsCounted(round=0, clients=counts)))
    (trace,) = figure.traces
    assert (trace["x"], trace["y"]) == (["2", "10"], ["0", "1"])
    assert trace["z"] == [[1.0, 3.0], [2.0, 0.0]]


def test_values_without_classes_have_no_map() -> None:
    counts = {"0": {"examples": 3}, "1": {"examples": 4}}
    assert partition_figures(story_of(LabelsCounted(round=0, clients=counts))) == []


def evaluated(number: int, client: str, accuracy: float) -> Event:
    metrics = {"loss": 1.0, "accuracy": accuracy, "num-examples": 3}
    return ClientEvaluated(round=number, client=client, metrics=metrics)


def test_what_clients_measure_is_a_band_and_a_bar_for_each() -> None:
    saved = {"round": 1, "metric": "accuracy", "value": 0.5}
    story = story_of(
        CheckpointSaved(**saved, file="", sha256="", bytes=1),
        *(evaluated(1, str(n), n / 10) for n in range(11)),
        evaluated(2, "1", 0.75),
        evaluated(2, "0", 0.25),
        RoundFinished(round=2, seconds=1.0),
    )
    spread, by_client = evaluation_figures(story)
    low, _, median = spread.traces
    assert (low["y"][0], median["y"]) == (0.1, [0.5, 0.5])
    (bars,) = by_client.traces
    assert (bars["x"], bars["y"]) == (["0", "1"], [0.25, 0.75])
    assert evaluation_figures(story_of()) == []


def test_the_map_of_an_object_can_show_one_client() -> None:
    story = story_of(
        update(1, "a", recall(0.25, 0.5, 0.0)),
        update(1, "b", recall(0.75, 0.5, 1.0)),
        update(2, "a", recall(1.0, 1.0, 1.0)),
    )
    (figure,) = keyed_figures(story)
    (menu,) = figure.layout["updatemenus"]
    shown = {button["label"]: button["args"][0]["z"][0] for button in menu["buttons"]}
    assert shown == {
        "all clients, median": [[0.5, 1.0], [0.5, 1.0], [0.5, 1.0]],
        "client a": [[0.0, 1.0], [0.5, 1.0], [0.25, 1.0]],
        "client b": [[1.0, None], [0.5, None], [0.75, None]],
    }


def test_a_map_of_too_many_clients_or_of_one_has_no_menu() -> None:
    for clients in (1, 31):
        (figure,) = keyed_figures(
            story_of(*(update(1, str(i), recall(0.1, 0.2, 0.3)) for i in range(clients)))
        )
        assert "updatemenus" not in figure.layout


def test_texts_are_counted_in_a_table() -> None:
    story = story_of(
        update(1, "a", {"device": "cpu"}),
        update(1, "b", {"device": "gpu"}),
        update(2, "a", {"device": "cpu"}),
    )
    (table,) = [each for each in tables(story, []) if each.key == "texts"]
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["device", "cpu", "2"],
        ["device", "gpu", "1"],
    ]


def test_the_best_metric_is_drawn_against_what_it_cost() -> None:
    """From 0.1 to 0.9 in two rounds of 1 MB down, 1 MB up and 3 s: 95 % of the way is round 2."""
    rounds = [
        event
        for number, accuracy in ((1, 0.7), (2, 0.9))
        for event in (
            RoundStarted(
                round=number, learning_rate=0.1, sampled=1, available=1, bytes_down=1_000_000
            ),
            RoundFinished(
                round=number, metrics={"accuracy": accuracy}, bytes_up=1_000_000, seconds=3.0
            ),
        )
    ]
    initial = RoundFinished(round=0, metrics={"accuracy": 0.1}, seconds=0.0)
    figures = {each.key: each for each in cost_figures(story_of(initial, *rounds))}
    (trace,) = figures["value-for-bytes"].traces
    assert (trace["x"], trace["y"]) == ([0.0, 2.0, 4.0], [0.1, 0.7, 0.9])
    assert figures["value-for-seconds"].note == (
        "95 % of the way to the best value: round 2, after 4 MB and 6 s."
    )


def test_the_length_of_updates_is_a_band() -> None:
    first = update(1, "a", {}).model_copy(update={"norm": 3.0})
    (figure,) = [
        each
        for each in client_figures(story_of(first), [], drawn_fields(story_of(first)))
        if each.key == "norms"
    ]
    assert figure.traces[-1]["y"] == [3.0]


def test_what_sites_do_is_a_table_of_the_last_reports() -> None:
    before, now = SiteMeasures(clip_norm=1.0), SiteMeasures(withheld=["metadata.power"])
    story = story_of(
        *(update(1, "b", {}).model_copy(update={"site": site}) for site in (before, now))
    )
    (table,) = [each for each in tables(story, []) if each.key == "sites"]
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["b", "withholds metadata.power"]
    ]
    assert [each.key for each in tables(story_of(), []) if each.key == "sites"] == []
