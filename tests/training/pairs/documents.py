"""Documents to make pairs of: a few with structure, and many that are hostile."""

from __future__ import annotations

from ctxindex.types import Document, Section

LEASE = """\
LEASE AGREEMENT

between Harbour Storage Ltd. and Miller Foods Inc.

1. Term

The lease begins on May 1, 2021 and runs for ten years unless one of the parties gives notice before it ends.

2. Rent

The tenant pays a rent of $4,500 a month. The rent rises by 3 percent a year after the first review of the premises.

3. Definitions

"Premises" means the cold store at 12 Quay Road with its loading ramp and the two offices above the ramp.

Cold Storage. The landlord keeps the store at a temperature of minus eighteen degrees on every day of the term. It \
tells the tenant at once when the cooling fails.
"""

ISLAND = """\
# Saint Helena

Saint Helena is a volcanic island in the South Atlantic Ocean. It was discovered in 1502 by sailors from Portugal.

## Economy

The economy of the island depends on flax, coffee and a little tourism. About 25 percent of the workers are employed \
by the government of the island. The airport was opened in 2016 near Prosperous Bay.

```
The code of this block is no prose and must never be asked about in any query.
```

## Climate

The climate is tropical and tempered by the trade winds. Temperatures in Jamestown vary between twenty and thirty \
degrees in the course of a year.
"""

FRENCH = """\
Le phare de Cordouan

Le phare de Cordouan se dresse à sept kilomètres en mer, sur le plateau de Cordouan, à l'embouchure de la Gironde. \
Il fut achevé en 1611 par l'ingénieur Louis de Foix et ses successeurs. La tour mesure soixante-sept mètres de haut.

Le phare abrite une chapelle royale décorée de vitraux du dix-neuvième siècle. Les gardiens montent chaque jour les \
trois cents marches de l'escalier central.
"""

CHINESE = """\
故宫博物院

故宫博物院位于北京市中心，建于明朝永乐年间的紫禁城之内。馆内藏有一百八十余万件文物，其中陶瓷三十七万件。每年约有一千七百万名游客参观这座博物院。

博物院于一九二五年正式对外开放，是中国最大的古代文化艺术博物馆。一九八七年被列为世界文化遗产。
"""  # noqa: RUF001

HEBREW = """\
העיר חיפה

חיפה היא עיר הנמל הגדולה ביותר בצפון הארץ ושוכנת על מורדות הכרמל. בשנת 1933 נחנך בעיר נמל המים העמוקים הראשון. \
הגנים הבהאיים בחיפה הוכרזו כאתר מורשת עולמית בשנת 2008.
"""


def lease(doc_id: str = "lease.txt", text: str = LEASE) -> Document:
    return Document(doc_id, text)


def island() -> Document:
    economy, climate = ISLAND.index("## Economy"), ISLAND.index("## Climate")
    sections = (
        Section(0, ("Saint Helena",)),
        Section(economy, ("Saint Helena", "Economy")),
        Section(climate, ("Saint Helena", "Climate")),
    )
    return Document("island.md", ISLAND, "Saint Helena", sections=sections)


def corpus() -> list[Document]:
    return [lease(), island(), Document("cordouan.txt", FRENCH), Document("gugong.txt", CHINESE), hebrew()]


def hebrew() -> Document:
    return Document("haifa.txt", HEBREW)


HOSTILE = {
    "empty": "",
    "blank": " \n\t\n" * 50,
    "one line": "A single line.",
    "one word": "word",
    "huge line": "word " * 100_000,
    "huge word": "x" * 500_000,
    "dots": "." * 300_000,
    "dots and blanks": ". " * 100_000,
    "quotes": '"' * 100_000,
    "capitals": "AND " * 50_000,
    "brackets": "(the " * 50_000,
    "no letters": "12 34 56. 78 -- !! ?? 99.\n\n" * 300,
    "fence never closed": "Before the fence there is one sentence of words.\n```\n" + "code();\n" * 1000,
    "nothing but headings": "# A\n\n## B\n\n### C\n",
    "nothing but newlines": "\n" * 100_000,
    "carriage returns": "One sentence is here for you to read.\rAnother one is there as well.\r" * 40,
    "repeated": "The same sentence stands here again and again for ever. " * 400,
    "separators": "Line one stands before.\u2028Line two stands behind it, and no more.\u0085" * 30,
    "nul": "A sentence with a \x00 in the middle of its many words is here.",
    "table": "| a | b |\n|---|---|\n| 1 | 2 |\n" * 50,
    "emoji": "\U0001f600 \U0001f680 \U0001f9ea. " * 500,
    "combining": "e\u0301" * 20_000,
    "braces": "{0} {query} %s {{}} is a format. It is one that nobody should ever fill in, of all things. " * 5,
}
