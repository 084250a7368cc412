"""Random sentences of everyday voice commands: lower case, numbers in words.

    python grammar.py 20          prints twenty sentences
    python grammar.py --words     prints every word the grammar can say

A template is a string. ``{name}`` in it is replaced by a draw from the rule of that name, ``[a|b]`` by one of its
alternatives, which may be empty. Rules are lists of words, lists of templates, or functions of the random generator.
"""

import itertools
import random
import re
import sys
import zlib

ONES = "zero one two three four five six seven eight nine".split()
TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
).split()


def cardinal(number: int) -> str:
    """A number from 0 to 999,999 in words, without "and"."""
    if number < 10:
        return ONES[number]
    if number < 20:
        return TEENS[number - 10]
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            head, rest = divmod(number, size)
            return f"{cardinal(head)} {name}" + (f" {cardinal(rest)}" if rest else "")
    tens, ones = divmod(number, 10)
    return TENS[tens - 2] + (f" {ONES[ones]}" if ones else "")


def ordinal(day: int) -> str:
    """A day of a month, 1 to 31, as an ordinal in words."""
    if day <= 20:
        return ORDINALS[day - 1]
    if day == 30:
        return "thirtieth"
    return f"{TENS[day // 10 - 2]} {ORDINALS[day % 10 - 1]}"


def _number(rng: random.Random) -> str:
    digits = rng.choice((1, 2, 2, 2, 3, 3, 4, 5))
    return cardinal(rng.randrange(10**digits))


def _small_number(rng: random.Random) -> str:
    return cardinal(rng.randrange(1, 100))


def _digits(rng: random.Random) -> str:
    return " ".join(rng.choice(ONES) for _ in range(rng.randrange(3, 9)))


def _minutes(rng: random.Random) -> str:
    return cardinal(rng.randrange(2, 60))


def _hours(rng: random.Random) -> str:
    return cardinal(rng.randrange(2, 13))


def _clock(rng: random.Random) -> str:
    hour, minute = cardinal(rng.randrange(1, 13)), rng.randrange(1, 60)
    return rng.choice(
        (
            f"{hour} o'clock",
            f"{hour} {cardinal(minute) if minute > 9 else 'thirty'}",
            f"half past {hour}",
            f"quarter {rng.choice(('to', 'past'))} {hour}",
            f"{cardinal(rng.choice((5, 10, 20, 25)))} {rng.choice(('to', 'past'))} {hour}",
        )
    )


def _date(rng: random.Random) -> str:
    day, month = ordinal(rng.randrange(1, 32)), rng.choice(RULES["month"])
    return rng.choice((f"{month} {day}", f"the {day} of {month}"))


def _year(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return f"nineteen {cardinal(rng.randrange(10, 100))}"
    return f"twenty {cardinal(rng.randrange(10, 60))}"


RULES = {
    "number": _number,
    "small": _small_number,
    "digits": _digits,
    "minutes": _minutes,
    "hours": _hours,
    "clock": _clock,
    "date": _date,
    "year": _year,
    "day": "monday tuesday wednesday thursday friday saturday sunday".split(),
    "month": "january february march april may june july august september october november december".split(),
    "when": ["today", "tonight", "tomorrow", "tomorrow morning", "this afternoon", "this evening", "on {day}",
             "next {day}", "next week", "this weekend", "on {date}"],
    "daytime": ["in the morning", "in the afternoon", "in the evening", "tonight", "tomorrow"],
    "person": "anna ben clara david emma frank grace henry isabel jack kate lucas maria nina oliver paul rosa sam "
              "thomas victoria william zoe".split()
              + ["mom", "dad", "grandma", "my brother", "my sister", "my wife", "my husband", "my boss",
                 "the doctor", "the office", "the school", "home"],
    "room": "kitchen bedroom bathroom garage garden hall office basement".split()
            + ["living room", "dining room"],
    "device": ["light", "lights", "lamp", "fan", "heater", "television", "radio", "speaker", "camera"],
    "opening": ["door", "window", "windows", "curtains", "blinds", "gate"],
    "color": "red green blue yellow white orange purple pink".split(),
    "genre": "jazz rock pop classical country folk dance piano guitar".split(),
    "mood": "happy quiet relaxing loud new old favorite".split(),
    "place": "berlin boston chicago dublin london madrid paris rome sydney tokyo toronto vienna".split()
             + ["new york", "san francisco"],
    "goods": "apples bananas bread butter cheese chicken chocolate coffee cookies eggs fish flour honey juice "
             "lemons milk mushrooms onions pasta pepper potatoes rice salad salt soap soup sugar tea tomatoes "
             "water yogurt".split() + ["olive oil", "toilet paper", "dog food", "ice cream", "orange juice"],
    "amount": ["some", "more", "two bottles of", "a box of", "a bag of", "three packs of", "{small} pounds of",
               "two cans of", "fresh"],
    "task": ["call {person}", "buy {goods}", "feed the cat", "walk the dog", "water the plants",
             "take out the trash", "pay the bills", "clean the {room}", "pick up the kids", "send the report",
             "book a flight to {place}", "take my medicine", "wash the car", "do the laundry"],
    "message": ["i am on my way", "i will be late", "i will be home at {clock}", "see you {when}",
                "where are you", "dinner is ready", "happy birthday", "can you call me back",
                "i am running {minutes} minutes late", "thank you very much", "please buy {goods}",
                "the meeting is at {clock}", "how are you"],
    "event": ["meeting", "dentist appointment", "birthday party", "football game", "concert", "yoga class",
              "lunch with {person}", "dinner with {person}", "train to {place}"],
    "unit": ["miles", "kilometers", "meters", "feet", "inches", "grams", "ounces", "liters", "cups"],
    "please": ["", "", "", "please "],
}

TEMPLATES = {
    "timers": [
        "{please}set a timer for {minutes} [minutes|seconds]",
        "set a timer for {hours} hours[| and {minutes} minutes]",
        "set {hours} minute timer", "start a {minutes} minute timer for the {goods}",
        "wake me up at {clock}[| {daytime}]", "set an alarm for {clock}[| {daytime}| on {day}]",
        "[cancel|stop|pause] the [timer|alarm]", "how much time is left on the timer",
        "add {minutes} minutes to the timer", "snooze for {minutes} minutes", "turn off all alarms",
        "what time is it[| in {place}]",
    ],
    "home": [
        "{please}turn [on|off] the {room} {device}", "{please}turn the {device} [on|off] in the {room}",
        "switch [on|off] the {device}", "[dim|brighten] the {room} lights to {small} percent",
        "make the {room} lights {color}", "set the {device} to {color}",
        "set the temperature in the {room} to {small} degrees", "[open|close] the {room} {opening}",
        "[lock|unlock] the [front|back|garage] door", "is the {room} {opening} [open|closed]",
        "turn off everything in the {room}", "it is too [cold|warm|dark] in the {room}",
        "start the [vacuum|dishwasher|washing machine]",
    ],
    "music": [
        "{please}play some {genre} music", "play {mood} {genre} songs[| in the {room}]",
        "[next|previous] song", "skip this song", "turn [up|down] the volume", "[stop|pause|resume] the music",
        "set the volume to {small}[| percent]", "play my {mood} playlist", "what song is this",
        "play the {ordinal} album by {person}", "shuffle my {genre} playlist", "repeat this song",
        "play the news", "[play|find] a podcast about [history|science|sports|cooking|money]",
    ],
    "calls": [
        "{please}call {person}", "call {person} on the [mobile|work] phone", "dial {digits}",
        "send a message to {person}", "text {person} {message}", "tell {person} {message}",
        "send {person} a message saying {message}", "answer the phone", "hang up", "redial the last number",
        "read my [new|last] [messages|emails]", "do i have any new [messages|emails|calls]",
        "my phone number is {digits}", "the code is {digits}", "send an email to {person} about the {event}",
    ],
    "weather": [
        "what is the weather [like|] in {place} {when}", "will it [rain|snow] {when}[| in {place}]",
        "what is the temperature[| outside| in {place}]", "do i need [an umbrella|a coat] {when}",
        "how [cold|warm|windy] will it be {when}", "when is [sunrise|sunset] {when}",
        "is it [sunny|cloudy|raining] in {place}",
        "it is {small} degrees and [sunny|cloudy|windy]",
    ],
    "arithmetic": [
        "what is {number} [plus|minus|times] {number}", "what is {number} divided by {small}",
        "[add|multiply] {number} [and|by] {number}", "what is {small} percent of {number}",
        "how many {unit} are in {number} {unit}", "convert {number} {unit} to {unit}",
        "the answer is {number}", "{number}", "{number} [dollars|euros] and {small} cents",
        "what is the square root of {number}", "{number} point {small}",
    ],
    "shopping": [
        "{please}add {goods} to [my|the] shopping list", "add {amount} {goods} and {goods} to the list",
        "we need {goods} {goods} and {goods}", "buy {amount} {goods} {when}",
        "[remove|delete] {goods} from the shopping list", "what is on my [shopping|to do] list",
        "how much [is|are] the {goods}", "order {amount} {goods}[| for {person}]", "do we have enough {goods}",
        "{goods} {goods} {goods} and {goods}",
    ],
    "calendar": [
        "what is on my calendar {when}", "schedule a {event} {when}[| at {clock}]",
        "when is my next {event}", "move the {event} to {clock}[| {when}]", "cancel the {event} {when}",
        "what is the date {when}", "today is {day} {date}", "{date} {year}", "{day} {date}",
        "{day} at {clock}", "the {event} is {when} at {clock}", "my birthday is [in {month}|on {date}]",
        "i was born in {year}", "{clock}[| {daytime}]", "how many days until {date}",
        "how far is it to {place}", "find a [restaurant|hotel|bank|pharmacy] [near me|in {place}]",
        "how do i get to {place}", "navigate to {place}",
    ],
    "tasks": [
        "remind me to {task}[| at {clock}| {when}]", "i have to {task}[| {when}]", "do not forget to {task}",
        "{task}[| {when}]", "did you {task}",
    ],
    "small talk": [
        "hello[| {person}]", "good [morning|night]", "thank you", "yes[| please]", "no[| thank you]",
        "tell me a [joke|story]", "help me", "what can you do", "say that again please", "never mind",
        "how old are you", "good night and turn off the {device}",
    ],
    "numbers": [
        "{digits}", "{number}", "the {date}", "{date}", "room number {digits}", "page {number}",
        "count from {small} to {small}",
    ],
}
RULES["ordinal"] = ORDINALS[:10]


def _fixed_sentences() -> frozenset[str]:
    """All sentences of templates that use no rule. They are never held out: no other sentence may have their words."""
    found = set()
    for template in (template for topic in TEMPLATES.values() for template in topic if "{" not in template):
        parts = [part.split("|") for part in re.split(r"\[(.*?)\]", template)]
        found |= {" ".join("".join(choice).split()) for choice in itertools.product(*parts)}
    return frozenset(found)


FIXED = _fixed_sentences()


def is_held_out(text: str) -> bool:
    """Whether a sentence is kept for tests: one in twelve, chosen by CRC, of all sentences that are not fixed."""
    return zlib.crc32(text.encode()) % 12 == 0 and text not in FIXED


_SLOT = re.compile(r"\{([^{}]*)\}|\[([^\[\]]*)\]")


def expand(template: str, rng: random.Random) -> str:
    """Replaces the innermost slots until none is left."""

    def fill(match: re.Match) -> str:
        if match[2] is not None:
            return rng.choice(match[2].split("|"))
        rule = RULES[match[1]]
        return rule(rng) if callable(rule) else rng.choice(rule)

    while _SLOT.search(template):
        template = _SLOT.sub(fill, template)
    return " ".join(template.split())


def sentence(rng: random.Random) -> str:
    """One sentence: draws a topic, all equally likely, and then one of its templates."""
    return expand(rng.choice(TEMPLATES[rng.choice(tuple(TEMPLATES))]), rng)


def words() -> list[str]:
    """Every word that a long sample of sentences uses, sorted."""
    rng = random.Random(0)
    return sorted({word for _ in range(50_000) for word in sentence(rng).split()})


if __name__ == "__main__":
    if "--words" in sys.argv:
        print(*words(), sep="\n")
    else:
        generator = random.Random()
        for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 10):
            print(sentence(generator))
