"""Reading a trace, and drawing who made its calls."""

import pytest

from costd.cli.demo.cast import GROUPS, agents
from costd.cli.demo.stage import DemoFailed
from costd.cli.demo.trace import Row, plan, read_trace

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
GOOD = "2023-11-16 18:15:46.6805900,374,44\n"


def trace_of(tmp_path, text):
    path = tmp_path / "trace.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rows_come_in_the_order_of_their_times_counted_from_the_first(tmp_path):
    path = trace_of(
        tmp_path, HEADER + "2023-11-16T18:15:50Z,9,8\n" + GOOD + "2023-11-16 18:15:48,1,0\n"
    )
    assert [(row.index, row.prompt_tokens, row.output_tokens) for row in read_trace(path)] == [
        (0, 374, 44),
        (1, 1, 0),
        (2, 9, 8),
    ]
    assert [round(row.offset_s, 6) for row in read_trace(path)] == [0, 1.31941, 3.31941]


def test_a_limit_reads_so_many_rows_and_looks_at_no_other(tmp_path):
    path = trace_of(tmp_path, HEADER + GOOD * 3 + "nonsense\n")
    assert len(read_trace(path, 3)) == 3
    with pytest.raises(DemoFailed, match=r"trace\.csv:5:"):
        read_trace(path)


def test_other_columns_and_another_order_do_no_harm(tmp_path):
    path = trace_of(
        tmp_path,
        "\N{BYTE ORDER MARK}x,GeneratedTokens,ContextTokens,TIMESTAMP\n7,44,374,2023-11-16\n",
    )
    (row,) = read_trace(path)
    assert (row.prompt_tokens, row.output_tokens) == (374, 44)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("2023-11-16 18:15:46,374", "not as many fields"),
        ("2023-11-16 18:15:46,374,44,1", "not as many fields"),
        ("yesterday,374,44", "TIMESTAMP 'yesterday' is not a time"),
        ("2023-11-16 18:15:46,-1,44", "ContextTokens '-1' is not a count"),
        ("2023-11-16 18:15:46,374,4.5", r"GeneratedTokens '4\.5' is not a count"),
        ("2023-11-16 18:15:46,NaN,44", "ContextTokens 'NaN' is not a count"),
        ("2023-11-16 18:15:46,374,", "GeneratedTokens '' is not a count"),
        ("2023-11-16 18:15:46,374,٤٤", "GeneratedTokens '٤٤' is not a count"),
        ("2023-11-16 18:15:46,9999999999,44", "ContextTokens '9999999999' is not a count"),
        ('"2023-11-16 18:15:46"x,1,2', "not CSV"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path, line, complaint):
    path = trace_of(tmp_path, HEADER + GOOD + line + "\n" + GOOD)
    with pytest.raises(DemoFailed, match=rf"trace\.csv:3: .*{complaint}"):
        read_trace(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(DemoFailed, match="not UTF-8"):
        read_trace(trace_of(tmp_path, HEADER.encode() + b"\xff\xfe\n"))


def test_a_call_is_drawn_from_seed_and_row_alone():
    rows = [Row(index, index / 10, 1_000 + index, 100) for index in range(200)]
    drawn = [plan(row, 7) for row in rows]
    assert drawn == [plan(row, 7) for row in reversed(rows)][::-1]
    assert drawn != [plan(row, 8) for row in rows]
    assert {call.usage.prompt_tokens for call in drawn} == {row.prompt_tokens for row in rows}
    assert len({call.task_class for call in drawn}) == 6
    assert len({call.labels["project"] for call in drawn}) == 5
    assert len({call.model for call in drawn}) == 5


def test_callers_allow_more_output_than_the_trace_will_write():
    for tokens in (0, 1, 64, 65, 4_096, 5_000):
        assert plan(Row(0, 0.0, 10, tokens), 1).max_output_tokens >= tokens


def test_a_few_hundred_agents_of_several_projects_users_and_classes_take_part():
    everyone = agents(7)
    assert len(everyone) >= 200
    assert len({agent.name for agent in everyone}) == len(everyone)
    assert len({agent.user for agent in everyone}) >= 30
    assert len({group.project for group in GROUPS}) == 5
    assert len({task_class for group in GROUPS for task_class, _, _ in group.work}) == 6
