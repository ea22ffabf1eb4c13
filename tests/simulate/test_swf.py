"""Traces in the Standard Workload Format: what is read, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_service.simulate import swf
from gpudev_service.simulate.trace import Job, Status, Trace, TraceError

LINE = "1 0 10 3600 8 -1 -1 8 7200 -1 1 3 4 -1 1 2 -1 -1"


def one(line: str, *before: str) -> Job:
    (job,) = swf.read([*before, line], "t.swf").jobs
    return job


def test_a_line_becomes_a_typed_job() -> None:
    assert one(LINE) == Job(
        number=1,
        submit_s=0,
        run_s=3600,
        gpus=8,
        requested_s=7200,
        wait_s=10,
        status=Status.COMPLETED,
        user="user 3",
        groups=("4",),
        queue="1",
        partition="2",
    )


def test_what_is_not_known_is_none() -> None:
    job = one("7 5 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1")
    assert job == Job(number=7, submit_s=5, run_s=None, gpus=None)


def test_allocated_processors_stand_in_for_requested_ones() -> None:
    assert one("1 0 -1 60 4 -1 -1 -1 60 -1 1 -1 -1 -1 -1 -1 -1 -1").gpus == 4
    assert one("1 0 -1 60 4 -1 -1 6 60 -1 1 -1 -1 -1 -1 -1 -1 -1").gpus == 6


def test_the_header_names_partitions_and_queues() -> None:
    header = [
        "; Version: 2.2",
        ";Computer: a cluster",
        "; Partition: 2 h100",
        "; Queue: 1 day",
        ";",
    ]
    trace = swf.read([*header, "", LINE], "t.swf")
    assert trace.header["Computer"] == "a cluster"
    assert (trace.jobs[0].partition, trace.jobs[0].queue) == ("h100", "day")


def test_jobs_come_by_submission() -> None:
    later, sooner = LINE.replace("1 0", "1 50", 1), LINE.replace("1 0", "2 20", 1)
    assert [job.number for job in swf.read([later, sooner], "t.swf").jobs] == [2, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 2 3", "t.swf, line 2: 18 fields make a job, and this has 3 fields"),
        (LINE + " 9", "line 2: 18 fields make a job, and this has 19"),
        (LINE.replace("3600", "soon"), r"line 2: field 4 \(run time\) is 'soon'. Accepted: a numb"),
        (LINE.replace("3600", "nan"), r"field 4 \(run time\) is 'nan'"),
        (LINE.replace("3600", "-7"), r"field 4 \(run time\) is -7. Accepted: 0 or more, or -1"),
        (LINE.replace(" 8 -1", " 8.5 -1", 1), r"field 5 \(alloc.* '8.5'. Accepted: a whole number"),
        (LINE.replace("-1 1 3", "-1 9 3"), r"field 11 \(status\) is 9. Accepted: -1, 0, 1, 2"),
        ("-1" + LINE[1:], r"field 1 \(job number\) has to be known"),
        ("x" * 10_000, "a line longer than any job's"),
        ("; only a comment", "t.swf: has no job. A job is a line of 18 numbers"),
    ],
)  # fmt: skip
def test_a_bad_line_is_refused_with_its_number_and_what_is_accepted(
    line: str, message: str
) -> None:
    with pytest.raises(TraceError, match=message):
        swf.read(["; Version: 2.2", line], "t.swf")


def test_two_jobs_with_one_number_are_refused() -> None:
    with pytest.raises(TraceError, match="line 3: job 1 stands in line 1 already"):
        swf.read([LINE, "", LINE], "t.swf")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"none\.swf cannot be read: No such file"):
        swf.read_file(tmp_path / "none.swf")


numbers = st.integers(0, 10**9)
seconds = st.one_of(numbers, st.floats(0, 1e9, allow_nan=False))
jobs = st.builds(
    Job,
    number=numbers,
    submit_s=seconds,
    run_s=st.none() | seconds,
    gpus=st.none() | st.integers(1, 10**6),
    requested_s=st.none() | seconds.filter(bool),
    wait_s=st.none() | seconds,
    status=st.sampled_from(Status),
    user=st.sampled_from(["", "user 1"]),
    groups=st.sampled_from([(), ("1",)]),
    partition=st.sampled_from([None, "h100"]),
    queue=st.sampled_from([None, "day"]),
)


@given(st.lists(jobs, min_size=1, max_size=8, unique_by=lambda job: job.number))
def test_what_is_written_is_read_again(given_jobs: list[Job]) -> None:
    ordered = tuple(sorted(given_jobs, key=lambda job: (job.submit_s, job.number)))
    lines = list(swf.write(Trace("t", ordered, {"Computer": "a cluster"})))
    again = swf.read(lines, "t")
    assert again.jobs == ordered
    assert again.header["Computer"] == "a cluster"


def refusal(lines: list[str]) -> str:
    try:
        swf.read(lines, "t.swf")
    except TraceError as error:
        return str(error)
    return "read"


@given(st.lists(st.text(max_size=60), max_size=6))
def test_any_text_is_read_or_refused_by_line(lines: list[str]) -> None:
    assert refusal(lines).startswith(("t.swf", "read"))


@given(
    st.integers(0, 17),
    st.one_of(st.text("0123456789.-+eEinfa", min_size=1, max_size=12), st.floats().map(str)),
)
def test_any_word_in_any_field_is_read_or_refused_by_field(field: int, word: str) -> None:
    words = LINE.split()
    words[field] = word
    said = refusal([" ".join(words)])
    assert said == "read" or f"field {field + 1} " in said
