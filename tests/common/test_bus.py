"""The conformance suite of the bus: what every carrier does, told through the interface alone.

No test knows which carrier it speaks to. Topics and groups are each test's own, so that all tests
of a carrier may share one log.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.bus.base import (
    Bus,
    BusError,
    Fenced,
    Follower,
    Received,
    Record,
    Subscription,
    Topic,
    UnknownTopic,
)
from libs.common.db import transient
from tests.common.carriers import CARRIERS, Carrier, EmbeddedCarrier, KafkaCarrier
from tests.common.helpers import eventually, read, scratch_database

PROFILE = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module", params=CARRIERS)
async def carrier(
    request: pytest.FixtureRequest, server_url: str, migrated: str
) -> AsyncIterator[Carrier]:
    """Give each carrier in turn, with a log of its own to this module."""
    if request.param == "kafka":
        yield KafkaCarrier(request.getfixturevalue("kafka"))
        return
    async with scratch_database(server_url, migrated) as url:
        yield EmbeddedCarrier(url)


@pytest.fixture
async def bus(carrier: Carrier) -> AsyncIterator[Bus]:
    """Open the bus."""
    async with carrier.open() as bus:
        yield bus


_numbers = count(1)


def fresh(what: str) -> str:
    """Make up a name that no other test and no other run uses."""
    return f"test.{what}.{next(_numbers)}.{uuid4().hex[:8]}"


async def new_topic(bus: Bus, *, compacted: bool = False, partitions: int = 3) -> str:
    """Create a topic for one test."""
    topic = Topic(fresh("topic"), partitions=partitions, compacted=compacted)
    await bus.apply_topics([topic])
    return topic.name


async def send(bus: Bus, *records: Record, name: str | None = None) -> None:
    """Send records at once."""
    async with bus.producer(name or fresh("producer")) as producer:
        await producer.send(records)


def numbered(topic: str, keys: Iterable[str]) -> list[Record]:
    """Make one record per key whose value counts from 0."""
    return [Record(topic, key, str(number).encode()) for number, key in enumerate(keys)]


def values(records: Iterable[Record]) -> list[int]:
    """Read the numbers back."""
    return [int(record.value or b"-1") for record in records]


def places(records: Iterable[Received]) -> Counter[tuple[str, int, int]]:
    """Name where records stand in the log, and how often each was read."""
    return Counter((record.topic, record.partition, record.offset) for record in records)


def by_key(records: Iterable[Record]) -> dict[str, list[int]]:
    """Sort the numbers by key, each in the order of reading."""
    found = defaultdict(list)
    for record in records:
        found[record.key].append(int(record.value or b"-1"))
    return dict(found)


async def nothing_more(reader: Subscription | Follower) -> None:
    """Make sure that a reader has nothing left."""
    assert await reader.fetch(10, 0.3) == []


# Sending --------------------------------------------------------------------------------------


async def test_records_of_one_key_are_read_in_the_order_they_were_sent(bus: Bus) -> None:
    topic = await new_topic(bus)
    records = numbered(topic, ["a", "b", "c", "b", "a"] * 60)
    async with bus.producer(fresh("producer")) as producer:
        for start in range(0, len(records), 37):
            await producer.send(records[start : start + 37])
    async with bus.follow([topic]) as follower:
        found = await read(follower, len(records))
    assert by_key(found) == by_key(records)


async def test_what_was_sent_is_durable_when_send_returns(carrier: Carrier) -> None:
    async with carrier.open() as first:
        topic = await new_topic(first)
        await send(first, *numbered(topic, "abc"))
    async with carrier.open() as second, second.follow([topic]) as follower:
        assert sorted(values(await read(follower, 3))) == [0, 1, 2]


async def test_an_unknown_topic_is_named_and_nothing_of_the_batch_is_sent(bus: Bus) -> None:
    first, last = sorted([await new_topic(bus), await new_topic(bus)])
    missing = fresh("missing")
    batch = [
        Record(last, "k", b"1"),
        Record(missing, "k", b"1"),
        Record(first, "k", b"1"),
    ]
    async with bus.producer(fresh("producer")) as producer:
        with pytest.raises(UnknownTopic) as refused:
            await producer.send(batch)
        assert refused.value.topic == missing
        await producer.send([Record(first, "k", b"2")])
    async with bus.follow([first, last]) as follower:
        assert values(await read(follower, 1)) == [2]
        await nothing_more(follower)


async def test_sending_nothing_is_fine(bus: Bus) -> None:
    async with bus.producer(fresh("producer")) as producer:
        await producer.send([])


async def test_a_batch_may_span_topics_and_repeat_a_key(bus: Bus) -> None:
    one, other = await new_topic(bus), await new_topic(bus)
    await send(
        bus,
        Record(one, "k", b"0"), Record(other, "k", b"1"),
        Record(one, "k", b"2"), Record(other, "k", b"3"),
    )  # fmt: skip
    async with bus.follow([one, other]) as follower:
        found = await read(follower, 4)
    assert values(r for r in found if r.topic == one) == [0, 2]
    assert values(r for r in found if r.topic == other) == [1, 3]


async def test_opening_a_producer_of_the_same_name_fences_the_older_one(carrier: Carrier) -> None:
    name = fresh("producer")
    async with carrier.open() as here, carrier.open() as there:
        topic = await new_topic(here)
        async with here.producer(name) as older:
            await older.send([Record(topic, "k", b"0")])
            async with there.producer(name) as newer:
                with pytest.raises(Fenced):
                    await older.send([Record(topic, "k", b"99")])
                await newer.send([Record(topic, "k", b"1")])
                with pytest.raises(Fenced):
                    await older.send([Record(topic, "k", b"99")])
        async with here.follow([topic]) as follower:
            assert values(await read(follower, 2)) == [0, 1]
            await nothing_more(follower)


async def test_producers_of_other_names_do_not_fence_each_other(bus: Bus) -> None:
    topic = await new_topic(bus)
    async with bus.producer(fresh("one")) as one, bus.producer(fresh("other")) as other:
        await one.send([Record(topic, "k", b"0")])
        await other.send([Record(topic, "k", b"1")])
        await one.send([Record(topic, "k", b"2")])
    async with bus.follow([topic]) as follower:
        assert values(await read(follower, 3)) == [0, 1, 2]


async def test_of_two_producers_that_race_under_one_name_only_the_last_opened_goes_on(
    carrier: Carrier,
) -> None:
    name = fresh("producer")
    async with AsyncExitStack() as stack:
        buses = [await stack.enter_async_context(carrier.open()) for _ in range(2)]
        topic = await new_topic(buses[0], partitions=1)
        older = await stack.enter_async_context(buses[0].producer(name))

        async def send_until_fenced() -> tuple[int, bool]:
            """Count what was acknowledged, and tell whether the last one's fate was left open."""
            for number in range(100_000):
                try:
                    await older.send([Record(topic, "old", str(number).encode())])
                except Fenced:
                    return number, False
                except BusError:  # a broker may fall over a commit that is being fenced off
                    return number, True
            raise AssertionError("never fenced")

        sending = asyncio.create_task(send_until_fenced())
        async with buses[1].follow([topic]) as follower:
            found = await read(follower, 20)
            newer = await stack.enter_async_context(buses[1].producer(name))
            await newer.send([Record(topic, "new", b"0")])
            acknowledged, in_doubt = await sending
            found += await read(follower, acknowledged + 1 - len(found))
            if in_doubt and found[-1].key == "old":
                acknowledged += 1
                found += await read(follower, 1)
            await nothing_more(follower)
    # What was acknowledged is there once, and nothing of the old one stands behind the new.
    assert [record.key for record in found] == ["old"] * acknowledged + ["new"]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
HEADERS = st.dictionaries(TEXT.filter(bool), TEXT, max_size=4)


@given(sent=st.lists(st.tuples(TEXT, st.binary(max_size=300), HEADERS), min_size=1, max_size=5))
@PROFILE
async def test_keys_bytes_and_headers_arrive_unchanged(
    bus: Bus, sent: list[tuple[str, bytes, dict[str, str]]]
) -> None:
    topic = await new_topic(bus, partitions=1)
    await send(bus, *(Record(topic, key, value, headers) for key, value, headers in sent))
    async with bus.follow([topic]) as follower:
        found = await read(follower, len(sent))
    assert [(r.key, r.value, dict(r.headers)) for r in found] == sent


async def test_a_large_value_arrives_whole(bus: Bus) -> None:
    topic = await new_topic(bus)
    value = bytes(range(256)) * 2000
    await send(bus, Record(topic, "k", value))
    async with bus.follow([topic]) as follower:
        assert (await read(follower, 1))[0].value == value


# Groups ---------------------------------------------------------------------------------------


async def gather_from(
    members: Sequence[Subscription], total: int, within: float = 20.0
) -> list[list[Received]]:
    """Let members read and commit side by side until so many records have been read."""
    taken: list[list[Received]] = [[] for _ in members]

    async def work(member: Subscription, into: list[Received]) -> None:
        while True:
            into += await member.fetch(7, 0.1)
            await member.commit()

    tasks = [asyncio.create_task(work(*pair)) for pair in zip(members, taken, strict=True)]
    try:
        await eventually(lambda: sum(map(len, taken)) >= total, within)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
    return taken


async def test_each_record_goes_to_one_member_of_a_group(carrier: Carrier) -> None:
    async with AsyncExitStack() as stack:
        buses = [await stack.enter_async_context(carrier.open()) for _ in range(3)]
        topics = [await new_topic(buses[0]) for _ in range(3)]
        group = fresh("group")
        members = [await stack.enter_async_context(b.subscribe(group, topics)) for b in buses]
        for member in members:
            await member.fetch(1, 0.1)  # joined
        for topic in topics:
            await send(buses[0], *numbered(topic, "abcdefghij" * 5))
        taken = await gather_from(members, 150)
        for member in members:
            await nothing_more(member)
    everything = [record for part in taken for record in part]
    assert len(everything) == 150
    assert len(places(everything)) == 150


async def test_two_groups_each_get_every_record(bus: Bus) -> None:
    topic = await new_topic(bus)
    await send(bus, *numbered(topic, "abcab"))
    for _ in range(2):
        async with bus.subscribe(fresh("group"), [topic]) as member:
            assert sorted(values(await read(member, 5))) == [0, 1, 2, 3, 4]


async def test_when_a_member_leaves_another_goes_on_from_what_it_committed(
    carrier: Carrier,
) -> None:
    async with carrier.open() as here, carrier.open() as there:
        topic, group = await new_topic(here, partitions=1), fresh("group")
        await send(here, *numbered(topic, "aaaaaa"))
        async with here.subscribe(group, [topic]) as leaving:
            assert values(await read(leaving, 2)) == [0, 1]
            await leaving.commit()
            assert values(await read(leaving, 2)) == [2, 3]  # fetched, never committed
        async with there.subscribe(group, [topic]) as staying:
            assert values(await read(staying, 4)) == [2, 3, 4, 5]


async def test_when_a_members_connection_dies_another_takes_over_and_its_commit_is_refused(
    carrier: Carrier,
) -> None:
    async with carrier.open() as here, carrier.open() as there:
        topic, group = await new_topic(here, partitions=1), fresh("group")
        await send(here, *numbered(topic, "aaaaaa"))
        async with here.subscribe(group, [topic]) as lost, there.subscribe(group, [topic]) as heir:
            assert values(await read(lost, 2)) == [0, 1]
            await lost.commit()
            assert values(await read(lost, 2)) == [2, 3]
            await carrier.sever(lost)
            assert values(await read(heir, 3)) == [2, 3, 4]
            await heir.commit()
            with pytest.raises(Fenced):
                await lost.commit()
        async with here.subscribe(group, [topic]) as next_one:
            assert values(await read(next_one, 1)) == [5]


async def test_a_severed_member_can_join_again(carrier: Carrier) -> None:
    async with carrier.open() as bus:
        topic, group = await new_topic(bus), fresh("group")
        await send(bus, *numbered(topic, "abc"))
        async with bus.subscribe(group, [topic]) as member:
            assert len(await read(member, 3)) == 3
            await carrier.sever(member)
            with pytest.raises(BusError):
                await member.commit()
        async with bus.subscribe(group, [topic]) as member:
            assert len(await read(member, 3)) == 3


async def test_rewinding_gives_the_uncommitted_records_again(bus: Bus) -> None:
    one, other = await new_topic(bus), await new_topic(bus)
    await send(bus, *numbered(one, "aabba"), *numbered(other, "cdc"))
    async with bus.subscribe(fresh("group"), [one, other]) as member:
        first = await read(member, 4)
        await member.commit()
        rest = await read(member, 4)
        await member.rewind()
        again = await read(member, 4)
        await nothing_more(member)
    assert places(again) == places(rest)
    assert not places(first) & places(rest)


async def test_rewinding_before_any_commit_goes_back_to_the_first_record(bus: Bus) -> None:
    topic = await new_topic(bus, partitions=1)
    await send(bus, *numbered(topic, "abc"))
    async with bus.subscribe(fresh("group"), [topic]) as member:
        assert values(await read(member, 3)) == [0, 1, 2]
        await member.rewind()
        assert values(await read(member, 3)) == [0, 1, 2]


async def test_committed_offsets_survive_reopening_the_bus(carrier: Carrier) -> None:
    group = fresh("group")
    async with carrier.open() as bus:
        topic = await new_topic(bus)
        await send(bus, *numbered(topic, "abcabc"))
        async with bus.subscribe(group, [topic]) as member:
            before = await read(member, 4)
            await member.commit()
    async with carrier.open() as bus, bus.subscribe(group, [topic]) as member:
        after = await read(member, 2)
        await nothing_more(member)
    assert sorted(values(before + after)) == [0, 1, 2, 3, 4, 5]


async def test_a_new_group_replays_from_the_first_record(bus: Bus) -> None:
    topic = await new_topic(bus)
    await send(bus, *numbered(topic, "abc"))
    async with bus.subscribe(fresh("group"), [topic]) as member:
        await read(member, 3)
        await member.commit()
    async with bus.subscribe(fresh("group"), [topic]) as member:
        assert sorted(values(await read(member, 3))) == [0, 1, 2]


async def test_fetch_gives_no_more_than_asked_for(bus: Bus) -> None:
    topics = [await new_topic(bus) for _ in range(3)]
    for topic in topics:
        await send(bus, *numbered(topic, "abcdefgh"))
    async with bus.subscribe(fresh("group"), topics) as member, bus.follow(topics) as follower:
        for reader in (member, follower):
            found: list[Received] = []
            while len(found) < 24:
                batch = await reader.fetch(5, 1.0)
                assert len(batch) <= 5
                found += batch
            assert len(places(found)) == 24


async def test_a_reader_that_waits_is_woken_by_a_record(carrier: Carrier) -> None:
    async with carrier.open() as here, carrier.open() as there:
        topic = await new_topic(here)
        async with here.subscribe(fresh("group"), [topic]) as member, here.follow([topic]) as tail:
            assert await member.fetch(1, 0.1) == []
            waiting = [asyncio.create_task(reader.fetch(1, 30)) for reader in (member, tail)]
            await send(there, Record(topic, "k", b"7"))
            async with asyncio.timeout(10):
                for found in await asyncio.gather(*waiting):
                    assert values(found) == [7]


async def test_lag_counts_what_a_group_has_not_committed(bus: Bus) -> None:
    topic, group = await new_topic(bus), fresh("group")
    assert await bus.lag(group, [topic]) == {topic: 0}
    await send(bus, *numbered(topic, "abcabcab"))
    assert await bus.lag(group, [topic]) == {topic: 8}
    async with bus.subscribe(group, [topic]) as member:
        await read(member, 5)
        assert await bus.lag(group, [topic]) == {topic: 8}
        await member.commit()
        assert await bus.lag(group, [topic]) == {topic: 3}
        await read(member, 3)
        await member.commit()
    assert await bus.lag(group, [topic]) == {topic: 0}


async def test_a_topic_that_comes_later_is_read_by_those_who_already_asked_for_it(
    bus: Bus,
) -> None:
    late = Topic(fresh("late"))
    async with bus.subscribe(fresh("group"), [late.name]) as member:
        assert await member.fetch(1, 0.1) == []
        await bus.apply_topics([late])
        await send(bus, Record(late.name, "k", b"1"))
        assert values(await read(member, 1)) == [1]


async def test_applying_topics_again_keeps_what_is_in_them(bus: Bus) -> None:
    topic = Topic(fresh("topic"))
    await bus.apply_topics([topic])
    await send(bus, *numbered(topic.name, "ab"))
    await bus.apply_topics([topic])
    async with bus.follow([topic.name]) as follower:
        assert sorted(values(await read(follower, 2))) == [0, 1]


async def test_topics_are_told_as_they_were_made_and_missing_ones_named(bus: Bus) -> None:
    facts, states, missing = (
        Topic(fresh("facts")),
        Topic(fresh("states"), compacted=True),
        fresh(""),
    )
    await bus.apply_topics([facts, states])
    names = [facts.name, missing, states.name]
    assert await bus.missing(names) == [missing]
    found = await bus.describe_topics(names)
    assert {name: state.compacted for name, state in found.items()} == {
        facts.name: False,
        states.name: True,
    }


async def test_applying_topics_makes_one_that_was_made_otherwise_what_it_should_be(
    bus: Bus,
) -> None:
    topic = Topic(fresh("topic"), compacted=True)
    await bus.apply_topics([replace(topic, compacted=False)])
    await bus.apply_topics([topic])
    assert (await bus.describe_topics([topic.name]))[topic.name].compacted


# Followers ------------------------------------------------------------------------------------


async def test_a_follower_sees_everything_from_the_first_record_and_knows_when_it_is_there(
    bus: Bus,
) -> None:
    topic = await new_topic(bus)
    await send(bus, *numbered(topic, "abcabcabc"))
    async with bus.follow([topic]) as follower:
        assert not follower.caught_up
        found = await read(follower, 4)
        assert not follower.caught_up
        found += await read(follower, 5)
        assert follower.caught_up
        await send(bus, Record(topic, "a", b"9"))
        assert follower.caught_up, "it is about what was there at the beginning"
        found += await read(follower, 1)
    assert by_key(found) == {"a": [0, 3, 6, 9], "b": [1, 4, 7], "c": [2, 5, 8]}


async def test_a_follower_of_empty_topics_is_there_at_once(bus: Bus) -> None:
    async with bus.follow([await new_topic(bus), await new_topic(bus)]) as follower:
        assert follower.caught_up


async def test_a_follower_names_topics_that_are_missing_and_reads_them_when_they_come(
    bus: Bus,
) -> None:
    here, late = await new_topic(bus), Topic(fresh("late"))
    await send(bus, Record(here, "k", b"0"))
    async with bus.follow([here, late.name]) as follower:
        assert follower.missing == {late.name}
        assert values(await read(follower, 1)) == [0]
        await bus.apply_topics([late])
        await send(bus, Record(late.name, "k", b"1"), Record(here, "k", b"2"))
        assert sorted(values(await read(follower, 2))) == [1, 2]
        assert not follower.missing


async def test_two_followers_see_the_same(carrier: Carrier) -> None:
    async with carrier.open() as here, carrier.open() as there:
        topic = await new_topic(here)
        await send(here, *numbered(topic, "abcd" * 10))
        async with here.follow([topic]) as one, there.follow([topic]) as other:
            seen = [await read(follower, 40) for follower in (one, other)]
            await send(there, *numbered(topic, "ab"))
            for follower, records in zip((one, other), seen, strict=True):
                records += await read(follower, 2)
    assert places(seen[0]) == places(seen[1])
    assert by_key(seen[0]) == by_key(seen[1])


async def test_following_leaves_no_trace_in_groups(bus: Bus) -> None:
    topic, group = await new_topic(bus), fresh("group")
    await send(bus, *numbered(topic, "abc"))
    async with bus.follow([topic]) as follower:
        await read(follower, 3)
    assert await bus.lag(group, [topic]) == {topic: 3}


async def test_the_ends_of_topics_are_where_the_next_records_go(bus: Bus) -> None:
    topic, empty = await new_topic(bus), await new_topic(bus)
    before = await bus.ends([topic, empty, fresh("missing")])
    assert set(before) == {topic, empty}
    await send(bus, *numbered(topic, "abc"))
    after = await bus.ends([topic, empty])
    assert after[empty] == before[empty]
    async with bus.follow([topic]) as follower:
        for record in await read(follower, 3):
            assert before[topic][record.partition] <= record.offset
            assert record.offset < after[topic][record.partition]


async def test_a_follower_that_begins_at_the_end_sees_only_what_comes_later(bus: Bus) -> None:
    topic = await new_topic(bus)
    await send(bus, *numbered(topic, "abcabc"))
    async with bus.follow([topic], await bus.ends([topic])) as follower:
        assert follower.caught_up
        await nothing_more(follower)
        await send(bus, Record(topic, "a", b"6"), Record(topic, "b", b"7"))
        assert sorted(values(await read(follower, 2))) == [6, 7]
        await nothing_more(follower)


async def test_a_topic_whose_place_is_not_named_is_read_from_its_beginning(bus: Bus) -> None:
    named, other = await new_topic(bus), await new_topic(bus)
    await send(bus, *numbered(named, "ab"), *numbered(other, "cd"))
    async with bus.follow([named, other], await bus.ends([named])) as follower:
        found = await read(follower, 2)
        await nothing_more(follower)
    assert {record.topic for record in found} == {other}


async def test_a_place_beyond_the_end_is_the_end(bus: Bus) -> None:
    topic = await new_topic(bus)
    await send(bus, *numbered(topic, "abc"))
    beyond = {topic: [end + 1000 for end in (await bus.ends([topic]))[topic]]}
    async with bus.follow([topic], beyond) as follower:
        await nothing_more(follower)
        await send(bus, Record(topic, "a", b"3"))
        assert values(await read(follower, 1)) == [3]


@given(keys=st.text("abcde", min_size=1, max_size=12), cuts=st.lists(st.integers(1, 4), max_size=4))
@settings(PROFILE, max_examples=15)
async def test_followers_that_take_over_from_one_another_see_every_record_once(
    bus: Bus, keys: str, cuts: list[int]
) -> None:
    topic = await new_topic(bus)
    start, found = await bus.ends([topic]), list[Received]()
    await send(bus, *numbered(topic, keys))
    for cut in [*cuts, len(keys)]:
        async with bus.follow([topic], start) as follower:
            found += await read(follower, min(cut, len(keys) - len(found)))
            start = follower.positions
    assert by_key(found) == by_key(numbered(topic, keys))


async def test_a_place_whose_records_were_compacted_away_leads_to_those_that_are_left(
    carrier: Carrier, bus: Bus
) -> None:
    topic = await new_topic(bus, compacted=True, partitions=1)
    start = await bus.ends([topic])
    await send(bus, *numbered(topic, "aaabbb"))
    await carrier.compact(bus, topic)
    async with bus.follow([topic], start) as follower:
        assert values(await read(follower, 2)) == [2, 5]
        await at_the_end(bus, follower, topic)


async def at_the_end(bus: Bus, follower: Follower, topic: str) -> None:
    """Make sure that a follower comes to where a topic ends, and reads nothing on the way."""
    ends = await bus.ends([topic])
    assert any(ends[topic])
    async with asyncio.timeout(10):
        while follower.positions != ends:
            assert await follower.fetch(10, 0.1) == []


async def test_a_follower_that_has_read_everything_is_where_the_topic_ends(bus: Bus) -> None:
    topic = await new_topic(bus)
    async with bus.follow([topic]) as follower:
        await send(bus, *numbered(topic, "abcabc"))
        await read(follower, 6)
        await at_the_end(bus, follower, topic)
        await send(bus, *numbered(topic, "ab"))
        await read(follower, 2)
        await at_the_end(bus, follower, topic)


async def test_concurrent_senders_never_make_a_reader_miss_a_record(carrier: Carrier) -> None:
    """A reader follows while several senders of different names append to the same topics."""
    senders, rounds = 4, 25
    async with AsyncExitStack() as stack:
        buses = [await stack.enter_async_context(carrier.open()) for _ in range(3)]
        topics = [await new_topic(buses[0], partitions=1) for _ in range(2)]
        follower = await stack.enter_async_context(buses[2].follow(topics))
        member = await stack.enter_async_context(buses[2].subscribe(fresh("group"), topics))

        async def append(sender: int) -> None:
            async with buses[sender % 2].producer(fresh(f"sender{sender}")) as producer:
                for number in range(rounds):
                    # Every second sender names the topics the other way round.
                    batch = [Record(t, f"s{sender}", str(number).encode()) for t in topics]
                    await producer.send(batch[:: 1 if sender % 2 else -1])

        total = senders * rounds * len(topics)
        sending = asyncio.gather(*map(append, range(senders)))
        followed, subscribed = await asyncio.gather(
            read(follower, total, 30), read(member, total, 30)
        )
        await sending
        await nothing_more(follower)
    for found in (followed, subscribed):
        assert set(places(found).values()) == {1}
        for topic in topics:
            own = [record for record in found if record.topic == topic]
            # Offsets rise; a carrier may give some to what no reader sees.
            assert [r.offset for r in own] == sorted({r.offset for r in own})
            assert by_key(own) == {f"s{s}": list(range(rounds)) for s in range(senders)}


# Compaction -----------------------------------------------------------------------------------


async def latest_of(bus: Bus, topic: str) -> tuple[dict[str, bytes | None], int]:
    """Follow a topic to its end: the last value per key, and how many records were read."""
    state: dict[str, bytes | None] = {}
    seen = 0
    async with bus.follow([topic]) as follower:
        while not follower.caught_up:
            for record in await follower.fetch(100, 1.0):
                state[record.key] = record.value
                seen += 1
    return state, seen


async def test_compaction_leaves_the_last_value_of_each_key_and_tombstones(
    carrier: Carrier, bus: Bus
) -> None:
    topic = await new_topic(bus, compacted=True, partitions=1)
    await send(bus, *numbered(topic, "abcab" * 20), Record(topic, "gone", b"1"))
    await send(bus, Record(topic, "gone", None), Record(topic, "last", b"x"))
    before, _ = await latest_of(bus, topic)
    await carrier.compact(bus, topic)
    after, seen = await latest_of(bus, topic)
    assert after == before == {"a": b"98", "b": b"99", "c": b"97", "gone": None, "last": b"x"}
    assert seen == 5


async def test_a_topic_of_facts_is_never_compacted(carrier: Carrier, bus: Bus) -> None:
    topic = await new_topic(bus)
    await send(bus, *numbered(topic, "aaaa"))
    await carrier.compact(bus, topic)
    assert (await latest_of(bus, topic))[1] == 4


async def test_readers_in_the_middle_of_a_compacted_topic_lose_nothing_they_need(
    carrier: Carrier, bus: Bus
) -> None:
    topic, group = await new_topic(bus, compacted=True, partitions=1), fresh("group")
    await send(bus, *numbered(topic, "abcabcabc"))
    async with bus.follow([topic]) as follower, bus.subscribe(group, [topic]) as member:
        readers: tuple[Follower | Subscription, ...] = (follower, member)
        states: list[dict[str, int]] = [{}, {}]
        for reader, state in zip(readers, states, strict=True):
            for record in await read(reader, 2):
                state[record.key] = values([record])[0]
        await member.commit()
        await carrier.compact(bus, topic)
        await send(bus, Record(topic, "a", b"20"))
        for reader, state in zip(readers, states, strict=True):
            while state.get("a") != 20:
                for record in await read(reader, 1):
                    state[record.key] = values([record])[0]
            assert state == {"a": 20, "b": 7, "c": 8}
        assert follower.caught_up


async def test_a_follower_catches_up_although_what_it_still_had_to_read_was_compacted_away(
    carrier: Carrier, bus: Bus
) -> None:
    topic = await new_topic(bus, compacted=True, partitions=1)
    await send(bus, *numbered(topic, "aaaaaa"))
    async with bus.follow([topic]) as follower:
        await read(follower, 1)
        await send(bus, Record(topic, "a", b"6"))
        await carrier.compact(bus, topic)
        while values(await read(follower, 1)) != [6]:
            pass  # it may have read ahead
        assert follower.caught_up


async def test_compaction_beside_senders_and_other_compactions_disturbs_nobody(
    carrier: Carrier,
) -> None:
    async with carrier.open() as here, carrier.open() as there:
        topic = await new_topic(here, compacted=True, partitions=1)
        async with here.producer(fresh("producer")) as producer, there.follow([topic]) as follower:
            state: dict[str, bytes | None] = {}

            async def append() -> None:
                for number in range(30):
                    await producer.send(
                        [Record(topic, f"k{key}", b"%d" % number) for key in range(10)]
                    )

            async def compact() -> None:
                for _ in range(5):
                    await asyncio.gather(
                        carrier.compact(here, topic), carrier.compact(there, topic)
                    )

            work = asyncio.gather(append(), compact())
            while state.get("k9") != b"29":
                for record in await follower.fetch(50, 5.0):
                    state[record.key] = record.value
            await work
    assert state == {f"k{key}": b"29" for key in range(10)}


# The bus as a whole ---------------------------------------------------------------------------


async def test_ping_returns_while_the_bus_answers(bus: Bus) -> None:
    await bus.ping()


async def test_a_group_shared_by_processes_handles_everything_while_members_come_and_go(
    carrier: Carrier,
) -> None:
    """Members leave, die and join while records come; every record is committed by somebody."""
    total = 200
    seen: Counter[tuple[str, int, int]] = Counter()
    async with AsyncExitStack() as stack:
        buses = [await stack.enter_async_context(carrier.open()) for _ in range(2)]
        topics = [await new_topic(buses[0], partitions=1) for _ in range(2)]
        group = fresh("group")

        async def member(bus: Bus, life: int) -> None:
            while len(seen) < total:
                try:
                    async with bus.subscribe(group, topics) as subscription:
                        for turn in range(life):
                            records = await subscription.fetch(6, 0.3)
                            if life == 5 and turn == 3:
                                await carrier.sever(subscription)
                            await subscription.commit()
                            seen.update(places(records))
                except BusError:
                    continue
                except Exception as error:
                    if not transient(error):
                        raise

        async def append() -> None:
            async with buses[0].producer(fresh("producer")) as producer:
                for number in range(total // 2):
                    await producer.send(
                        [Record(topic, "k", str(number).encode()) for topic in topics]
                    )

        async with asyncio.timeout(30):
            await asyncio.gather(append(), member(buses[0], 5), member(buses[1], 8))
        assert len(seen) == total
        assert await buses[0].lag(group, topics) == dict.fromkeys(topics, 0)
    assert set(seen.values()) == {1}, "a record was committed twice"
