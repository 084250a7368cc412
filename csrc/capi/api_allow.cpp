// What a search may emit.
#include "capi/api.h"
#include "text/scripts.h"

using namespace tdt;
using namespace tdt::capi;

namespace {

tdt_allow* made_allow(const tdt_model* model, std::vector<unsigned char> tokens) {
  const std::size_t blank = static_cast<std::size_t>(model->held->vocabulary->blank());
  bool any = false;
  for (std::size_t token = 0; token < tokens.size(); ++token) any = any || (tokens[token] && token != blank);
  if (!any) refuse("that leaves no token of the vocabulary that may be emitted");
  return new tdt_allow{std::make_shared<const Allow>(Allow{model->held, std::move(tokens)})};
}

// All tokens have the value `others`, those of a list the opposite.
tdt_allow* listed(const tdt_model* model, const int32_t* tokens, std::size_t count, bool others) {
  require(model, "model");
  if (count) require(tokens, "tokens");
  const text::Vocabulary& vocabulary = *model->held->vocabulary;
  std::vector<unsigned char> may(vocabulary.pieces().size(), others);
  for (std::size_t i = 0; i < count; ++i) {
    if (tokens[i] < 0 || static_cast<std::size_t>(tokens[i]) >= may.size() || tokens[i] == vocabulary.blank())
      refuse("tokens[" + std::to_string(i) + "] must be a token of the model and not blank, got " +
             std::to_string(tokens[i]));
    may[static_cast<std::size_t>(tokens[i])] = !others;
  }
  return made_allow(model, std::move(may));
}

}  // namespace

extern "C" {

tdt_status tdt_allow_only(const tdt_model* model, const int32_t* tokens, size_t count, tdt_allow** allow) {
  return give(allow, "allow", [&] { return listed(model, tokens, count, false); });
}

tdt_status tdt_allow_except(const tdt_model* model, const int32_t* tokens, size_t count, tdt_allow** allow) {
  return give(allow, "allow", [&] { return listed(model, tokens, count, true); });
}

tdt_status tdt_allow_scripts(const tdt_model* model, const char* const* names, size_t count, tdt_allow** allow) {
  return give(allow, "allow", [&] {
    require(model, "model");
    if (!count) refuse("names must have the name of a script, such as \"latin\" or \"common\"");
    require(names, "names");
    std::vector<int> scripts;
    for (std::size_t i = 0; i < count; ++i) {
      const std::string name = "names[" + std::to_string(i) + "]";
      require(names[i], name.c_str());
      scripts.push_back(text::find_script(names[i]));
      if (scripts.back() < 0)
        refuse(name + " must be a Unicode script, such as \"latin\" or \"common\", got \"" +
               names[i] + "\"");
    }
    return made_allow(model, text::tokens_of_scripts(*model->held->vocabulary, scripts));
  });
}

void tdt_allow_free(tdt_allow* allow) { delete allow; }

}  // extern "C"
