from voicetextblender.seeding import seeded


def test_draws_depend_on_the_key_alone():
    assert seeded(1, "a").integers(10**9) == seeded(1, "a").integers(10**9)
    assert seeded(1, "a").integers(10**9) != seeded(1, "b").integers(10**9)
    assert seeded(1, 23).integers(10**9) != seeded(12, 3).integers(10**9)
