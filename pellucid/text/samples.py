"""Short texts of many kinds, written for Pellucid, on which `pellucid tokenizer report` compares tokenizers.

Each has 700 to 1,600 bytes. They are no benchmark: a vocabulary may do better or worse on other text of the same kind.
"""

from __future__ import annotations

PROSE = """\
The harbour woke before the town did. Long before the first shutters opened, the boats had come in on the tide, low in
the water, and the gulls had settled their quarrel over the nets. Old Marten counted the crates twice, as he had done
every morning for thirty-one years, and wrote the number on the inside of his wrist with a stub of pencil, because paper
blew away and memory, he said, was only paper of a worse kind.

Nobody in Lindholm remembered who had built the stone pier. There were stories, of course. The schoolteacher believed
in a mad bishop; the children believed in giants, which was more sensible, since some of the blocks were larger than
a cart. What everyone agreed on was that the pier had never moved, not in the great storm, nor when the cargo ship
struck it on a clear summer night. It simply stood there, patient and a little crooked, and the sea went round it.
"""

DIALOGUE = """\
"You're late," said Nora.
"I know. I'm sorry. The bus didn't come, and then two of them came at once."
"They always do that."
"Is there any soup left?"
"There's soup, but it's cold. You could've called, couldn't you?"
"My phone's dead. Honestly! Look: nothing. Not even the little red battery."
"Hmm." She pushed the bread across the table. "Well, sit down, then. Did you get it?"
"Get what?"
"Don't tell me you've forgotten. The key, Tom. The key!"
"Oh, that. Yes... no. I mean, I've got *a* key. I don't think it's the right one."
"Let's see. No, that's for a bicycle. We'll have to ask Mrs. Abel again, won't we?"
"She won't like it."
"She'd like it even less if we climbed through her window."
"What, both of us? I'd never fit."
"Then it's settled: you ask, I'll wait outside, and if she says no, we'll both run."
"""

CODE = '''\
import json
from collections import defaultdict
from pathlib import Path


class Inventory:
    """Counts parts by name; a count below zero is an error."""

    def __init__(self, path: Path | None = None) -> None:
        self.counts: dict[str, int] = defaultdict(int)
        if path is not None and path.exists():
            self.counts.update(json.loads(path.read_text(encoding="utf-8")))

    def add(self, name: str, n: int = 1) -> int:
        if self.counts[name] + n < 0:
            raise ValueError(f"only {self.counts[name]} of {name!r} left, {-n} asked")
        self.counts[name] += n
        return self.counts[name]


if __name__ == "__main__":
    inventory = Inventory()
    for i, part in enumerate(["bolt", "nut", "washer"] * 3):
        inventory.add(part, n=i % 4 + 1)
    print(max(inventory.counts.items(), key=lambda item: item[1]))

// and the same in another language
function total(parts) {
  let sum = 0;
  for (const [name, n] of Object.entries(parts)) {
    if (!name.startsWith("_") && n >= 0) { sum += n; }
  }
  return sum;  // 0x1F === 31 && "a" + 1 !== "a2"
}
'''

NUMBERS = """\
date,time,station,temp_c,humidity,pressure_hpa,wind_ms
2031-04-01,00:00,417,8.25,81,1013.4,3.1
2031-04-01,06:00,417,6.90,88,1012.75,2.4
2031-04-01,12:00,417,14.03,57,1011.9,5.85
2031-04-01,18:00,417,11.48,64,1010.2,7.0
2031-04-02,00:00,417,-0.5,93,1009.66,1.2

1 + 1 = 2; 17 * 23 = 391; 1000000 / 7 = 142857.142857...; 2^32 = 4294967296; sqrt(2) = 1.4142135623730951
Invoice 20310417-0093: 12 pcs. at $1,249.99 = $14,999.88, plus 19 % VAT ($2,849.98), total $17,849.86, due in 30 days.
Call +00 555 0142 between 9:30 and 16:45. IP 192.0.2.17:8080, mask 255.255.255.0, id 7f3a-09c1-44e8, v3.11.4-rc2.
3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, 3, 8, 3, 2, 7, 9, 5, 0, 2, 8, 8, 4, 1, 9, 7
"""

MARKUP = """\
# Growing tomatoes on a balcony

> **In short:** sun, water from *below*, and patience.

1. Fill a pot (at least 15 l) with soil — see [soil mixes](https://example.org/soil?mix=2&lang=en#pots).
2. Plant **one** seedling per pot, up to the first leaves.
3. Water it `2×` a day in July; never at noon!

| Sort      | Height | Weeks | Taste |
|-----------|-------:|:-----:|-------|
| Red Pearl |  80 cm |   9   | sweet |
| Ox Heart  | 160 cm |  13   | mild  |

```bash
curl -s "https://example.org/api/v1/weather?city=Lindholm" | jq '.rain.mm'
```

<ul class="notes"><li>Don't remove the <em>lowest</em> leaves.</li><li>&copy; the neighbours</li></ul>

- [x] bought seeds
- [ ] asked Mrs. Abel for a watering can :-)
"""

ACCENTS = """\
Jeden Morgen öffnete die Bäckerin früh die Läden, grüßte die müden Straßenkehrer und stellte süße Brötchen ins Fenster.
Für die Kinder gab es übrigens immer eine Nussschnecke zusätzlich, wenn sie höflich »bitte schön« sagten.

Le garçon dîna très tôt près de la fenêtre, où sa sœur aînée lisait une vieille légende. « Ça suffit ! » s'écria-t-elle,
fâchée, dès que la pluie commença à tambouriner sur le toit de l'hôtel. L'été, décidément, n'était plus là.

Mañana por la mañana, el señor Núñez cruzará el río con su pequeño burro. ¿Quién le ayudará? ¡Ojalá no llueva!

Zażółć żółtą ścianę, zanim przyjdą goście; łódź już płynie ku wyspie. Příliš mladý kůň běžel přes šťavnatou louku.
Çocuklar gölün kıyısında güneş doğarken şarkı söylüyor, İpek ise ağacın altında öğle uykusunda. Hãy ăn phở khi còn nóng!
"""

CYRILLIC = """\
Утром старый рыбак вышел на берег и долго смотрел на воду. Море было тихое, почти серое, и только вдали, у маяка,
кружили чайки. Он проверил сети, завязал узел, который выучил ещё мальчиком, и позвал внука. Мальчик прибежал босиком,
с куском хлеба в руке, и спросил, правда ли, что за островом живёт большая рыба, которая умеет считать до семи.

— Правда, — ответил дед. — Но считает она только тогда, когда её никто не слушает.

Они засмеялись и столкнули лодку. Весь день ветер менялся, облака шли низко, а вечером, когда зажглись окна, лодка
вернулась. Рыбы в ней было немного, зато мальчик теперь точно знал: если опустить ухо к самой воде и подождать, слышно,
как кто-то медленно говорит: один, два, три, четыре, пять, шесть… А семь он, конечно, придумал сам.
"""

GREEK = """\
Το μικρό καφενείο στην άκρη του χωριού άνοιγε πάντα στις έξι το πρωί. Ο κυρ Αντώνης έβαζε νερό στο μπρίκι, σκούπιζε την
αυλή και άφηνε μια καρέκλα στον ήλιο για τη γάτα. Ύστερα έρχονταν οι ψαράδες, κουρασμένοι και ομιλητικοί, και ο καθένας
είχε μια ιστορία για το ψάρι που του ξέφυγε.

— Πόσο μεγάλο ήταν; ρωτούσε ο κυρ Αντώνης, χωρίς να σηκώσει το κεφάλι.
— Σαν τη βάρκα μου! φώναζε κάποιος. Και λίγο μεγαλύτερο!

Κανείς δεν τον πίστευε, αλλά όλοι γελούσαν. Το μεσημέρι η πλατεία άδειαζε, τα παράθυρα έκλειναν και ακουγόταν μόνο η
θάλασσα. Έτσι περνούσαν τα χρόνια, ήσυχα, με καφέ, αλάτι και παραμύθια που κάθε φορά μεγάλωναν λίγο περισσότερο.
"""

ARABIC = """\
في طرف المدينة القديمة كان هناك دكان صغير يبيع الكتب والساعات. صاحبه رجل هادئ يعرف كل زبون باسمه، ويسأل كل طفل عن آخر
قصة قرأها. في الصباح يفتح الباب الخشبي، ويرش الماء أمام العتبة، ثم يجلس ليصلح ساعة توقفت منذ سنوات.

ذات يوم دخلت بنت في العاشرة من عمرها وقالت: هل عندك كتاب لا ينتهي؟ ابتسم الرجل وأخرج دفترا أبيض من تحت الطاولة، وقال:
هذا هو، لكن عليك أن تكتبيه بنفسك. أخذت البنت الدفتر وعادت بعد أسبوع، وبعد شهر، وبعد سنة، وفي كل مرة كانت تقرأ له صفحة
جديدة عن البحر والقمر والقطط التي تسكن فوق السطوح.

وعندما كبرت صار الدكان لها، وما زالت الساعة القديمة على الجدار تشير إلى الوقت نفسه.
"""

HEBREW = """\
בקצה הרחוב עמד בית ישן עם גג אדום וגינה קטנה. בכל בוקר יצאה סבתא רותי אל המרפסת, השקתה את העציצים וסיפרה לחתול מה היא
חלמה בלילה. החתול הקשיב בסבלנות, כי ידע שאחרי החלום תמיד מגיעה צלוחית של חלב.

יום אחד דפק בדלת ילד מהשכונה ושאל: האם נכון שיש אצלכם מפה של מקום שאף אחד לא היה בו? סבתא רותי צחקה, פתחה מגירה
והוציאה דף נייר ריק לגמרי. הנה המפה, אמרה, אבל צריך ללכת לשם כדי לצייר אותה.

הילד לקח עיפרון והלך. הוא צייר את הנחל, את עץ התאנה, את הגשר השבור ואת הכלב הישן של השכן. בערב חזר עייף ושמח, והמפה
כבר לא הייתה ריקה. מאז, בכל קיץ, מישהו מוסיף לה עוד שביל קטן, ועדיין נשאר מקום בפינה.
"""

DEVANAGARI = """\
गाँव के बाहर एक पुराना बरगद का पेड़ था। उसकी छाया में बच्चे खेलते थे, बूढ़े लोग बातें करते थे और दोपहर में थके हुए मुसाफ़िर
आराम करते थे। एक दिन एक छोटी लड़की ने पेड़ से पूछा, "तुम इतने साल से यहाँ खड़े हो, क्या तुम्हें कहीं जाने का मन नहीं करता?"

पत्ते धीरे से हिले और लड़की को लगा कि पेड़ हँस रहा है। अगली सुबह उसने देखा कि बरगद की एक नई जड़ ज़मीन तक पहुँच गई है।
"अब समझी," उसने कहा, "तुम चलते हो, पर बहुत धीरे-धीरे।"

उस दिन से वह हर साल जड़ों के पास एक छोटा पत्थर रखती थी। जब वह बड़ी हुई, तब पत्थरों की क़तार नदी तक पहुँच चुकी थी, और पेड़
की छाया में अब दो गाँव बैठते थे। १२ साल, ३ नदियाँ और ४५६ कहानियाँ: सब उसी एक पेड़ के नीचे।
"""

CHINESE = """\
山脚下有一家很小的面馆，只有四张桌子。老板娘每天清晨五点起床，先烧水，再揉面，
然后把门口的灯笼点亮。她说，灯亮着，走夜路的人就知道这里有一碗热汤。

有一年冬天下了大雪，路被封了三天。第三天晚上，一个邮差推门进来，帽子和眉毛都是白的。
他从包里拿出一封信，说：“这封信在路上走了十七年，终于找到您了。”老板娘没有马上打开，
而是先给他煮了一大碗牛肉面，又加了一个鸡蛋。

信是她小时候的朋友写的，里面只有一句话：“等我回来，我们一起看雪。”她笑了，
把信贴在墙上，正对着窗户。后来，很多客人都问过那封信的故事，她总是说：“先吃面吧，面凉了就不好吃了。”

春天来的时候，一个陌生的老人在门口站了很久。他问：“还有位子吗？”她看了看他，又看了看墙上的信，
点点头说：“有，靠窗的那张桌子，给您留了十八年。”那天下午没有雪，可是两个人还是坐在窗边，
一直看到天黑。灯笼亮起来了，汤还是热的。
"""

JAPANESE = """\
海の近くの町に、小さな時計屋がありました。店の主人は無口な人で、朝から晩まで古い時計を直していました。
ある日、ひとりの女の子がこわれた目覚まし時計を持ってきて、「この時計、おばあちゃんの時間で動くんです」と言いました。

主人は少し考えてから、ゆっくりふたを開けました。歯車はどれもきれいで、どこも悪くありません。
ただ、針だけが一日に五分ずつ遅れるのです。「これは故障ではありませんね」と主人は言いました。
「きっと、おばあさんは毎日五分だけ、だれかを待っていたのでしょう。」

女の子は時計を抱いて帰りました。それから町の人たちは、バスが遅れても、雨がやまなくても、あまり怒らなくなりました。
「五分くらい、待ちましょう。」そう言って、みんな空を見上げます。カモメが鳴き、パンの焼けるにおいがして、
ラジオからは古いジャズが聞こえてきます。店のガラス戸には、今も小さな紙が貼ってあります。
「本日の営業：午前９時ごろから、だいたい夕方まで。」
"""

KOREAN = """\
강가의 작은 마을에 연을 만드는 할아버지가 살았습니다. 봄이 오면 아이들은 줄을 서서 저마다 다른 연을 부탁했습니다.
어떤 아이는 물고기 모양을, 어떤 아이는 별 모양을 원했습니다. 그런데 막내 지우는 아무 모양도 없는 하얀 연을
달라고 했습니다.

"왜 아무 그림도 없는 연이 좋으니?" 할아버지가 물었습니다. "하늘이 그려 줄 테니까요." 지우가 대답했습니다.

그날 오후 바람이 세게 불었고, 연들은 모두 높이 올라갔습니다. 해가 질 무렵 하얀 연은 붉은색이 되었다가, 보라색이
되었다가, 마침내 작은 달처럼 빛났습니다. 아이들은 숨을 죽이고 바라보았습니다. 다음 해부터 마을 사람들은 연에 그림을
그리지 않았습니다. 대신 저녁이 될 때까지 천천히 실을 풀면서, 하늘이 무엇을 그릴지 기다렸습니다. 지금도 4월 첫째
토요일이면 강가에는 하얀 연이 백 개쯤 떠 있습니다.
"""

EMOJI = """\
Good morning!! ☀️😀 who's coming to the picnic today? 🧺🥪🍓🍉
me me me 🙋‍♀️🙋🏽‍♂️🙋🏿 I'm bringing the cake 🎂🎉🎈 (chocolate 🍫😋)
can't, I'm sick 🤒🤧😭💔 next time 🙏🏻
oh nooo 😢 get well soon ❤️‍🩹💐🍵
Family trip: 👨‍👩‍👧‍👦✈️🏝️🐠🐢🐬 → 🇯🇵🇧🇷🇿🇦🇮🇸 → 🏠😴💤
Score: ⚽️ 3:2 🥅🔥🔥🔥 what a game 🤯🏆🥇👏👏🏼👏🏾
Weather: 🌧️🌦️🌤️☀️🌈  Mood: 😕🙂😄🥳  Coffee: ☕☕☕✅  Sleep: ❌
🧑‍🚀🚀🌕👽🛸 "take me to your leader" 🤖💬⌨️🖥️
1️⃣ wash 🥕🥔🧅  2️⃣ chop 🔪  3️⃣ cook 🍲⏲️ 45 min  4️⃣ eat 😍🤤👌
🐶🐱🐭🐹🐰🦊🐻🐼🐨🐯🦁🐮🐷🐸🐵🐔🐧🐦🦆🦉🦇🐺🐴🦄🐝🪲🦋🐌🐞🐜🪰🦂
lol 😂😂😂🤣🤣 stop it 🛑✋ see u at 5️⃣ 👋🏽😘💕✨
♠️♥️♦️♣️ 🎲🎲 lucky again 🍀🤞🏼 … 🎻🎺🥁🎸🎹🎶🎵 and then fireworks 🎆🎇🧨💥
"""

WHITESPACE = """\
menu:
    breakfast:
        - name:     porridge
          price:    3.50
          extras:
              -     honey
              -     raisins

    lunch:
        - name:     soup of the day
          price:    5.00


Name                    Room        Phone            Since
--------------------    --------    -------------    -----
Abel, Ruth                   101          555 0101    2019
Lind, Marten                   7                      1998

\tif ready:
\t\tfor row in table:
\t\t\tif row.empty:
\t\t\t\tcontinue
\t\t\tprint(row)\t\t# one by one

def f(x):
                                return (x
                                        + 1)



The end.   \n\n   \n\t\n        * * *        \n\n
    a     b     c          d               e                    f
   1.0   2.5   3.0       10.75          100.0               1000.0


\t\t\tto:      everybody
\t\t\tfrom:    the kitchen

        Please        leave        room        between        the        words.
"""

SAMPLES = {
    "prose": PROSE,
    "dialogue": DIALOGUE,
    "code": CODE,
    "numbers": NUMBERS,
    "markup": MARKUP,
    "Latin with accents": ACCENTS,
    "Cyrillic": CYRILLIC,
    "Greek": GREEK,
    "Arabic": ARABIC,
    "Hebrew": HEBREW,
    "Devanagari": DEVANAGARI,
    "Chinese": CHINESE,
    "Japanese": JAPANESE,
    "Korean": KOREAN,
    "emoji": EMOJI,
    "white space": WHITESPACE,
}
