from voicetextblender.page import Html, data_url, page, table, tag


def test_a_tag_escapes_text_and_attributes_but_not_markup():
    assert tag("p", "<", tag("b", "&"), title='"') == '<p title="&quot;">&lt;<b>&amp;</b></p>'
    assert tag("circle", stroke_width=2.0) == '<circle stroke-width="2"/>'
    assert tag("audio", controls=True, muted=False) == "<audio controls></audio>"
    assert tag("i", Html("<b>")) == "<i><b></i>"


def test_a_data_url_holds_the_bytes_themselves():
    assert data_url("audio/ogg", b"Ogg") == "data:audio/ogg;base64,T2dn"


def test_a_page_holds_its_stylesheets_and_escapes_its_title():
    whole = page("<b>", tag("p", "words"), style="p { color: red; }")
    assert "<title>&lt;b&gt;</title>" in whole and "p { color: red; }</style>" in whole
    assert "<main><p>words</p></main>" in whole


def test_the_first_columns_of_a_table_are_text_and_the_others_numbers():
    whole = table(("a", "b"), [("<", "1")])
    assert '<td class="text">&lt;</td><td class="number">1</td>' in whole
