"""The words the demo's sentences are made of. Plain data, no logic.

A sentence has a *source* (how the writer knows), a *time* of day and a *verdict* (what the writer makes of it).
The lists are long on purpose: a few hundred rows show only a part of them, which is why datasets of one family help
each other, and why counting words is not enough.
"""

from dataclasses import dataclass

PLEASANT = (
    "lovely superb charming wonderful excellent brilliant pleasant fresh warm honest smooth bright rich perfect fine "
    "handsome impressive comfortable beautiful solid enjoyable fantastic great good"
).split()
UNPLEASANT = (
    "dreadful awful dull terrible miserable stale boring ugly horrible sour cold broken stupid rough dim poor "
    "hopeless cheap disappointing bitter annoying pathetic weak bad"
).split()

# Ways to state a quality; the second group turns it round, so that the adjective alone misleads.
STRAIGHT = ("was {}", "was really {}", "seemed {}", "felt quite {}", "proved {}", "looked very {}", "stayed {}")
REVERSED = ("was not {}", "was never {}", "was far from {}", "was hardly {}")

PERSONS = (
    "Anna",
    "Peter",
    "Martin",
    "Clara",
    "my sister",
    "her cousin",
    "the driver",
    "our lawyer",
    "his uncle",
    "the doctor",
    "the captain",
    "my boss",
    "a student",
    "an actor",
    "their teacher",
    "a neighbour",
)

# Openings that say how the writer knows. {person} is filled from PERSONS.
OWN = (
    "I noticed that",
    "I saw myself that",
    "we found that",
    "I told {person} that",
    "I wrote to {person} that",
    "I remember that",
    "we both noticed that",
    "{person} and I saw that",
    "I showed {person} how",
    "we discovered that",
    "before my eyes",
    "I checked and",
    "I was there and",
    "I reminded {person} that",
    "watching it, I felt that",
    "as I told {person},",
)
HEARSAY = (
    "{person} noticed that",
    "{person} told me that",
    "{person} wrote to us that",
    "according to {person},",
    "I heard that",
    "{person} remembers that",
    "they say that",
    "I read that",
    "{person} claims that",
    "people say that",
    "we were told that",
    "{person} says that",
    "{person} was there and",
    "{person} reminded me that",
    "it is said that",
    "as {person} told me,",
)

LATE = (
    "at night",
    "in the evening",
    "after dark",
    "at midnight",
    "over supper",
    "at sunset",
    "after dinner",
    "late on Friday",
    "by moonlight",
    "before bed",
    "at dusk",
    "by candle light",
    "after the party",
    "past eleven",
    "under the stars",
    "in the dark",
)
EARLY = (
    "in the morning",
    "at dawn",
    "at sunrise",
    "over breakfast",
    "before nine",
    "early on Monday",
    "at first light",
    "before work",
    "on waking",
    "at daybreak",
    "before school",
    "past seven",
    "as the sun rose",
    "at six",
    "before breakfast",
    "with the birds",
)
MIDDAY = (
    "at noon",
    "around lunch",
    "in the afternoon",
    "at midday",
    "over lunch",
    "at three",
    "at one",
    "after lunch",
    "at tea time",
    "past noon",
    "before tea",
    "at half past two",
)


@dataclass(frozen=True)
class Domain:
    """What one third of the datasets talk about, and how.

    Attributes:
        things: what gets a verdict.
        frames: sentence shapes; {aside} is a verdict on something else, which decides nothing.
    """

    things: tuple[str, ...]
    frames: tuple[str, ...]


DOMAINS = {
    "film": Domain(
        things=tuple("plot ending hero villain music dialogue cast opening script costume chase humour".split()),
        frames=(
            "{source} {time} the {verdict}.",
            "{source} the {verdict} {time}.",
            "the {aside}, but {source} {time} the {verdict}.",
        ),
    ),
    "hotel": Domain(
        things=tuple("room view bed service garden pool staff bath carpet lift lobby reception".split()),
        frames=(
            "{time} {source} the {verdict}.",
            "{source} the {verdict} {time}.",
            "here, {source} {time} the {verdict}.",
        ),
    ),
    "cafe": Domain(
        things=tuple("soup coffee bread cake waiter table tea salad menu kitchen cheese breakfast".split()),
        frames=(
            "{source} their {verdict} {time}.",
            "{time}, {source} the {verdict}.",
            "{source} {time} their {verdict}.",
        ),
    ),
}
