"""Texts with the tokens real vocabularies make of them.

Counted with cl100k_base, o200k_base and the vocabulary Anthropic published for its second
generation of models. The sentences were written for this test.
"""

SAMPLES = {
    "english": (
        "The daemon holds the money it promised until the call reports what it really cost. Many teams share one budget, and nobody can promise what was not carved out first. If the connection fails, the client goes on with what it still holds; afterwards it applies the rule that its owner chose. A refusal is an answer, not an error, and it says when the same question could pass again. Yesterday evening our neighbours, who had moved in recently, invited everybody from the street to a small dinner in their garden, and the conversation soon turned to the weather, to schools and to the price of bread.",
        121,
        121,
        122,
    ),
    "german": (
        "Die Geschwindigkeitsbegrenzung auf der Bundesstraße wurde gestern überraschend geändert, weil die Bürgerinnen und Bürger der umliegenden Gemeinden sich über den Lärm beschwert hatten. Größere Lastkraftwagen dürfen künftig nur noch zwischen acht und zwanzig Uhr fahren. Außerdem prüft die Behörde, ob weitere Maßnahmen nötig sind.",
        99,
        69,
        110,
    ),
    "french": (
        "Le conseil municipal a décidé hier d’élargir la rue principale afin que les élèves puissent traverser plus facilement. Les commerçants, inquiets, demandent déjà une compensation financière. Où est passé l’été dernier ? Personne ne s’en souvient très bien, même à l’hôtel.",
        77,
        61,
        83,
    ),
    "spanish": (
        "El señor Núñez llegó a la estación después de las ocho, cuando ya habían salido todos los trenes hacia la montaña. ¿Quién le había dicho que esperase? Nadie contestó, así que volvió a casa caminando bajo la lluvia.",
        65,
        50,
        67,
    ),
    "polish": (
        "Wczoraj wieczorem nasi sąsiedzi zaprosili wszystkich mieszkańców ulicy na kolację w ogrodzie. Rozmawialiśmy o pogodzie, szkołach i cenie chleba, a później dzieci biegały po trawie aż do zmierzchu. Źdźbło trawy łaskotało żółwia.",
        93,
        77,
        115,
    ),
    "vietnamese": (
        "Hôm qua tôi đã đến trường để gặp thầy giáo cũ. Thầy vẫn nhớ tên của tất cả học sinh trong lớp và hỏi thăm từng người một. Chúng tôi ngồi uống trà dưới gốc cây bàng đến tận chiều tối.",
        93,
        53,
        141,
    ),
    "turkish": (
        "Dün akşam komşularımız sokaktaki herkesi bahçelerinde küçük bir yemeğe davet etti. Konuşma kısa sürede havaya, okullara ve ekmeğin fiyatına döndü. Çocuklar geç saatlere kadar oynadılar.",
        75,
        58,
        88,
    ),
    "russian": (
        "Вчера вечером наши соседи пригласили всех жителей улицы на небольшой ужин в саду. Разговор быстро перешёл к погоде, школам и ценам на хлеб, а дети до темноты бегали по траве. Программа запускается из командной строки и читает настройки из файла.",
        112,
        66,
        121,
    ),
    "greek": (
        "Χθες το βράδυ οι γείτονές μας κάλεσαν όλους σε ένα μικρό δείπνο στον κήπο. Η συζήτηση στράφηκε γρήγορα στον καιρό, στα σχολεία και στην τιμή του ψωμιού.",
        130,
        60,
        165,
    ),
    "arabic": (
        "دعا جيراننا مساء أمس جميع سكان الشارع إلى عشاء صغير في الحديقة، وسرعان ما تحول الحديث إلى الطقس والمدارس وأسعار الخبز. ركض الأطفال على العشب حتى حل الظلام.",
        100,
        48,
        138,
    ),
    "hebrew": (
        "אתמול בערב הזמינו השכנים שלנו את כל תושבי הרחוב לארוחת ערב קטנה בגינה, והשיחה עברה במהרה למזג האוויר, לבתי הספר ולמחיר הלחם.",
        119,
        51,
        111,
    ),
    "hindi": (
        "कल शाम हमारे पड़ोसियों ने गली के सभी लोगों को अपने बगीचे में एक छोटे से रात्रिभोज पर बुलाया। बातचीत जल्दी ही मौसम, स्कूलों और रोटी के दाम की ओर मुड़ गई।",
        154,
        48,
        167,
    ),
    "thai": (
        "เมื่อวานตอนเย็นเพื่อนบ้านของเราเชิญทุกคนในซอยมารับประทานอาหารเย็นเล็กๆ ในสวน การสนทนาเปลี่ยนไปเป็นเรื่องอากาศ โรงเรียน และราคาขนมปังอย่างรวดเร็ว",
        137,
        59,
        247,
    ),
    "chinese": (
        "昨天晚上，我们的邻居邀请了整条街的人到花园里吃晚饭。大家很快就聊起了天气、学校和面包的价格，孩子们在草地上一直跑到天黑。程序从命令行启动，并从文件中读取设置。",
        94,
        61,
        87,
    ),
    "japanese": (
        "昨日の夕方、隣の家の人たちが通りの全員を庭での小さな夕食に招いてくれました。話題はすぐに天気や学校、パンの値段に移り、子どもたちは暗くなるまで芝生の上を走り回っていました。",
        95,
        74,
        96,
    ),
    "korean": (
        "어제 저녁 이웃 사람들이 골목의 모든 주민을 정원에서 열린 작은 저녁 식사에 초대했다. 이야기는 곧 날씨와 학교, 빵값으로 옮겨 갔고 아이들은 어두워질 때까지 잔디밭을 뛰어다녔다.",
        107,
        66,
        112,
    ),
    "emoji": ("Great job 🎉🎉 see you soon 👋🏽 👩\u200d💻 love ❤️ 🇩🇪 🚀🔥 ok 😀😅😂", 43, 32, 48),
    "caps": (
        "WARNING: DO NOT TURN OFF THE POWER WHILE THE UPDATE IS BEING INSTALLED. CONTACT YOUR ADMINISTRATOR IMMEDIATELY.",
        26,
        29,
        32,
    ),
    "python": (
        'def settle(held: Reservation, cost_nusd: int) -> Settled:\n    """Close a reservation at its measured cost."""\n    if held.state is not ReservationState.HELD:\n        raise ReservationClosed(f"{held.reservation_id} is {held.state.name}")\n    overrun_nusd = max(0, cost_nusd - held.hold_nusd)\n    return Settled(cost_nusd=cost_nusd, overrun_nusd=overrun_nusd)\n',
        105,
        98,
        115,
    ),
    "js": (
        "export async function fetchUser(id) {\n  const response = await fetch(`/api/users/${id}`, { headers: { 'Content-Type': 'application/json' } });\n  if (!response.ok) {\n    throw new Error(`request failed: ${response.status}`);\n  }\n  return (await response.json()).user ?? null;\n}\n",
        67,
        67,
        80,
    ),
    "sql": (
        "SELECT u.id, u.email, COUNT(o.id) AS order_count FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE u.created_at >= '2026-01-01' GROUP BY u.id, u.email HAVING COUNT(o.id) > 5 ORDER BY order_count DESC LIMIT 100;",
        66,
        66,
        80,
    ),
    "json": (
        '[\n {\n  "user_id": 0,\n  "name": "Ann Example",\n  "scores": [\n   0.0,\n   2.5\n  ],\n  "active": true\n },\n {\n  "user_id": 7919,\n  "name": "Ann Example",\n  "scores": [\n   0.25,\n   2.5\n  ],\n  "active": true\n },\n {\n  "user_id": 15838,\n  "name": "Ann Example",\n  "scores": [\n   0.5,\n   2.5\n  ],\n  "active": true\n }\n]',
        133,
        133,
        128,
    ),
    "table": (
        "| name | cost |\n|------|------|\n| item 0 | 0.00 |\n| item 1 | 3.17 |\n| item 2 | 6.34 |\n| item 3 | 9.51 |\n| item 4 | 12.68 |",
        60,
        60,
        56,
    ),
    "base64": (
        "AFCuGpQcslYIyJZyXFRabpDA/kqkDIIGmDjmomxEKh4gME56tPxStiioNtJ8NPrOsKCeqsTsIma4GIYCjCTKfkAQ7trU3PIWSIjW",
        69,
        65,
        66,
    ),
}
