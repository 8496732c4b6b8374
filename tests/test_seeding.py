from dgs_lightning.seeding import generator, image_seed, named_seed


def test_seeds_are_the_same_on_every_machine() -> None:
    assert image_seed(0, "n02086240", 3) == 3266340928728110436


def test_names_that_read_alike_differ() -> None:
    assert len({named_seed(1, "1"), named_seed("1", 1), named_seed("11"), named_seed(11), named_seed("1", "1")}) == 5


def test_a_generator_fits_the_full_range_of_seeds() -> None:
    draws = {generator("x", k).initial_seed() for k in range(1000)}
    assert len(draws) == 1000
    assert all(0 <= seed < 2**63 for seed in draws)
