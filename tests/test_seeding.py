from voicetextblender.seeding import one_of, seeded


def test_draws_depend_on_the_key_alone():
    assert seeded(1, "a").integers(10**9) == seeded(1, "a").integers(10**9)
    assert seeded(1, "a").integers(10**9) != seeded(1, "b").integers(10**9)
    assert seeded(1, 23).integers(10**9) != seeded(12, 3).integers(10**9)


def test_each_of_a_pool_is_drawn_as_often():
    random = seeded("pool")
    drawn = [one_of("abcd", random) for _ in range(2000)]
    assert all(400 < drawn.count(letter) < 600 for letter in "abcd")
