-- Give pictures and captions of all.md pandoc's styles of Word: a picture stays on a page with its caption.
local CAPTIONS = {Figure = "Image Caption", Table = "Table Caption"}

local function set_off(block, style)
  return pandoc.Div({block}, pandoc.Attr("", {}, {["custom-style"] = style}))
end

function Para(para)
  local first = para.content[1]
  if first and first.t == "Image" then
    return set_off(para, "Captioned Figure")
  elseif first and first.t == "Emph" then
    local style = CAPTIONS[pandoc.utils.stringify(first):match("^(%a+) %d+, ")]
    return style and set_off(para, style)
  end
end
