"""What is in memory between decoding and storing is bounded."""

from concurrent.futures import ThreadPoolExecutor, wait

from vesta_connection.ingest import InHand


def test_who_brings_more_than_there_is_room_for_waits_until_enough_has_gone() -> None:
    in_hand = InHand(bytes_max=10)
    in_hand.enter(4)
    in_hand.enter(6)
    with ThreadPoolExecutor(1) as threads:
        third = threads.submit(in_hand.enter, 6)
        assert not wait([third], 0.05).done
        in_hand.leave(4)
        assert not wait([third], 0.05).done
        in_hand.leave(6)
        third.result(timeout=10)


def test_what_is_larger_than_all_the_room_comes_in_alone() -> None:
    in_hand = InHand(bytes_max=10)
    with ThreadPoolExecutor(2) as threads:
        threads.submit(in_hand.enter, 11).result(timeout=10)
        second = threads.submit(in_hand.enter, 1)
        assert not wait([second], 0.05).done
        in_hand.leave(11)
        second.result(timeout=10)
        large = threads.submit(in_hand.enter, 11)
        assert not wait([large], 0.05).done
        in_hand.leave(1)
        large.result(timeout=10)
