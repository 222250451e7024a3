# ruff: noqa: SIM905 - word lists are written as words, one after the other
"""The text messages, as data.

Two messages of a mirrored pair hold the same words in another order, so that counting words can't tell them apart while
a reader can: "do not wait, open it" and "wait, do not open it". A test proves that the counts are equal.
"""

from __future__ import annotations

from typing import Final

# (spam, not spam)
MIRRORED: Final = (
    ("this is not a joke, you have won {amt}, call {num}", "you have not won {amt}, this {num} call is a joke"),
    ("this is no scam, click {link} and get your {amt}", "get this and click no {link}, your {amt} is scam"),
    ("i will double your {amt} if you send it to my account by {day}",
     "you will double my {amt} if i send it to your account by {day}"),
    ("i am a prince and you are the winner of {amt}", "you are a prince and i am the winner of {amt}"),
    ("our bank never asks twice, send your pin to {link}", "send your pin to {link}? our bank never asks twice"),
    ("do not wait, open {link} and take your {prize}", "wait, do not open {link} and take your {prize}"),
    ("do not ignore this, reply to {num} and win {amt}", "ignore this, do not reply to {num} and win {amt}"),
    ("never miss a deal, always answer {num}, says the {shop} team",
     "always miss a deal, never answer {num}, says the {shop} team"),
    ("you must pay {amt} now, you can not see the police later",
     "you must not pay {amt} now, you can see the police later"),
    ("i can not believe it, you can win {amt} at {link}", "i can believe it, you can not win {amt} at {link}"),
    ("stop working and start to earn {amt} a day with {link}",
     "start working and stop to earn {amt} a day with {link}"),
    ("the {prize} is free and the call to {num} is not fake", "the {prize} is fake and the call to {num} is not free"),
    ("your card is blocked but {link} is safe to use", "your card is safe to use but {link} is blocked"),
    ("trust {num} and not your {relative}, the {amt} is yours",
     "trust your {relative} and not {num}, the {amt} is yours"),
    ("forget the doctor and ask {link} for pills", "forget {link} and ask the doctor for pills"),
    ("my {relative} was poor and is rich now, thanks to {link}",
     "my {relative} was rich and is poor now, thanks to {link}"),
    ("delete your bank app and keep this message from {num}",
     "keep your bank app and delete this message from {num}"),
    ("before you tell your {relative}, send {amt} to {num}", "before you send {amt} to {num}, tell your {relative}"),
    ("first pay {amt} and then see the {prize}", "first see the {prize} and then pay {amt}"),
    ("the {amt} from {link} is real and the warning is a lie",
     "the {amt} from {link} is a lie and the warning is real"),
    ("hurry, do not think, the {shop} voucher of {amt} ends {day}",
     "think, do not hurry, the {shop} voucher of {amt} ends {day}"),
    ("the police are wrong and {num} is right about your refund",
     "the police are right and {num} is wrong about your refund"),
    ("give {num} your password and tell your {relative} nothing",
     "tell your {relative} your password and give {num} nothing"),
    ("pay {amt} for the {prize} today and ask {shop} later", "ask {shop} for the {prize} today and pay {amt} later"),
)  # fmt: skip

SPAM: Final = (
    "you have been chosen for a free {prize}, claim it at {link} before {day}",
    "urgent: your {shop} account is locked, log in at {link} to save it",
    "claim your {amt} prize, just call {num} and say the code {code}",
    "cheap loans of {amt} without questions, reply yes to {num}",
    "congratulations, your number won our {shop} draw, text {code} to {num}",
    "your parcel with the {prize} is held, pay {amt} at {link}",
    "final notice: you owe {amt} tax, pay it at {link} today",
    "hot singles near you want to chat, call {num} for {amt} a minute",
    "exclusive offer from {shop}: a {prize} for only {amt}, order at {link}",
    "your phone has a virus, install the cleaner from {link} now",
    "{shop} gives {amt} vouchers to everybody who answers {num} by {day}",
    "earn {amt} a week from home, no work at all, see {link}",
    "we saw you on camera, send {amt} to {num} or your {relative} will know",
    "new ringtone every {day} for {amt}, text go to {num}",
    "your bank has sent {amt} back, confirm your card at {link}",
)
HAM: Final = (
    "can you call me on {num} when you are home, it is about the {prize}",
    "i saw a {prize} at {shop} for {amt}, shall i buy it",
    "thanks for the {prize}, my {relative} loves it",
    "are you free on {day}, we want to have dinner with my {relative}",
    "i paid {amt} for the tickets, you can send me your half by {day}",
    "my new number is {num}, please save it and tell your {relative}",
    "the code for the door is {code}, see you on {day}",
    "did your parcel with the {prize} come, mine is still at the post",
    "i won {amt} at cards with my {relative}, dinner is on me",
    "the pictures from {day} are at {link}, the one with the {prize} is great",
    "sorry, i missed your call, i was at {shop} with my {relative}",
    "my account at {shop} works again, it was only the password",
    "can you bring the {prize} on {day}, mine is broken",
    "happy birthday, call me on {num} when you open the {prize}",
    "the bank is closed on {day}, so i send you the {amt} later",
)

# Around any message; a name is always there, so that texts are many.
FRAMES: Final = (
    "hey {name}, {}", "hi {name}, {}", "{name}, {}", "dear {name}, {}", "ok {name}, {}", "hello {name}: {}",
    "{} {name}", "{}, love {name}", "{}, thx {name}", "{} xx {name}", "yo {name} {}", "{}, ok {name}?",
    "fyi {name}: {}", "{}. cheers, {name}", "{}, from {name}", "btw {name}, {}",
)  # fmt: skip
# Spelling in a hurry: word → short form. Both kinds of message use it alike.
SLANG: Final = {
    "you": "u", "your": "ur", "and": "&", "are": "r", "please": "pls", "for": "4", "tomorrow": "tmrw", "before": "b4",
    "today": "2day", "thanks": "thx", "message": "msg", "about": "abt", "with": "w", "see": "c", "great": "gr8",
}  # fmt: skip
PRIZES: Final = tuple(
    """bag bicycle blanket book bracelet camera car chair clock coat computer cruise dress fridge game guitar hat
    holiday jacket kettle lamp laptop lens necklace oven pan phone pillow printer radio ring robot scarf scooter
    shirt sofa speaker suitcase sweater table tablet tent ticket toaster trip umbrella violin voucher wallet
    watch""".split()
)
SHOPS: Final = tuple(
    """acorn alpha amber anchor atlas beacon bluebird bonanza bravo castle cedar comet coral crown delta diamond
    eagle echo falcon galaxy granite harbor horizon ivory jade jupiter kingfisher lotus maple mercury meteor nova
    oasis olympic orbit orion phoenix pioneer pluto quartz rocket saturn summit sunrise titan topaz vega vertex
    willow zenith""".split()
)
LINK_ENDS: Final = ("com", "net", "org", "info", "biz", "shop")
MONEY: Final = ("${}", "£{}", "{} dollars", "{} pounds", "{} euros", "{} bucks")
