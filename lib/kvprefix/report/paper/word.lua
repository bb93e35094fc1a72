-- For pandoc: give all.md the styles of Word and the widths of its columns.
local CAPTIONS = {Figure = "Image Caption", Table = "Table Caption"}
local LINE, MOST, LEAST, SPACE = 72, 45, 6, 3 -- letters of a line, of a column at most and least, between columns

local function set_off(block, style)
  return pandoc.Div({block}, pandoc.Attr("", {}, {["custom-style"] = style}))
end

-- A picture and a caption have styles of their own: a picture stays on a page with its caption.
function Para(para)
  local first = para.content[1]
  if first and first.t == "Image" then
    return set_off(para, "Captioned Figure")
  elseif first and first.t == "Emph" then
    local style = CAPTIONS[pandoc.utils.stringify(first):match("^(%a+) %d+, ")]
    return style and set_off(para, style)
  end
end

-- Columns are as wide as their texts; LibreOffice would make them equal.
function Table(full)
  local simple, letters, total = pandoc.utils.to_simple_table(full), {}, 0
  for column = 1, #simple.headers do
    letters[column] = utf8.len(pandoc.utils.stringify(simple.headers[column])) or 1
    for _, row in ipairs(simple.rows) do
      letters[column] = math.max(letters[column], utf8.len(pandoc.utils.stringify(row[column])) or 1)
    end
    letters[column] = math.max(math.min(letters[column], MOST), LEAST) + SPACE
    total = total + letters[column]
  end
  for column = 1, #letters do
    simple.widths[column] = letters[column] / math.max(total, LINE)
  end
  return pandoc.utils.from_simple_table(simple)
end
