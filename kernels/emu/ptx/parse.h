// From the text of a PTX file to its entries: parameters, registers, shared memory, labels, and one statement for each
// instruction, not yet decoded. What is not known is an error that names the line.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace ptx {

// Why a text is refused.
struct Invalid {
  int line;
  std::string why;
};

// What registers and instructions are of: 'p'redicate, 'b'its, 'u'nsigned, 's'igned, 'f'loat; `bits` wide. `packed` is x2.
struct Type {
  char kind = 0;
  int bits = 0;
  bool packed = false;
  int bytes() const { return bits / 8; }
};

inline bool is_type(const std::string& word, Type& type) {
  static const std::map<std::string, Type> known = {
      {"pred", {'p', 1}}, {"b8", {'b', 8}},    {"b16", {'b', 16}},          {"b32", {'b', 32}}, {"b64", {'b', 64}},
      {"u8", {'u', 8}},   {"u16", {'u', 16}},  {"u32", {'u', 32}},          {"u64", {'u', 64}}, {"s8", {'s', 8}},
      {"s16", {'s', 16}}, {"s32", {'s', 32}},  {"s64", {'s', 64}},          {"f16", {'f', 16}}, {"f32", {'f', 32}},
      {"f64", {'f', 64}}, {"bf16", {'g', 16}}, {"bf16x2", {'g', 32, true}},
  };
  auto at = known.find(word);
  if (at != known.end()) type = at->second;
  return at != known.end();
}

struct Token {
  std::string text;
  int line;
};

inline std::vector<Token> tokens(const char* p) {
  std::vector<Token> out;
  int line = 1;
  auto wordy = [](char c) { return isalnum((unsigned char)c) || strchr("_$%.", c); };
  while (*p) {
    if (*p == '\n') line++, p++;
    else if (isspace((unsigned char)*p)) p++;
    else if (p[0] == '/' && p[1] == '/') while (*p && *p != '\n') p++;
    else if (p[0] == '/' && p[1] == '*') {
      for (p += 2; *p && !(p[0] == '*' && p[1] == '/'); p++) line += *p == '\n';
      if (!*p) throw Invalid{line, "a comment without end"};
      p += 2;
    } else if (wordy(*p)) {
      const char* start = p;
      while (*p && (wordy(*p) || (p[0] == ':' && p[1] == ':' && wordy(p[2])))) p += *p == ':' ? 2 : 1;  // .shared::cta
      out.push_back({std::string(start, p), line});
    } else if (*p == '"') {
      const char* start = p++;
      while (*p && *p != '"' && *p != '\n') p++;
      if (*p != '"') throw Invalid{line, "a string without end"};
      out.push_back({std::string(start, ++p), line});
    } else if (strchr("{}[](),;:@!|+-<>=", *p)) out.push_back({std::string(1, *p++), line});
    else throw Invalid{line, std::string("unexpected character '") + *p + "'"};
  }
  out.push_back({"", line});
  return out;
}

struct Register {
  Type type;
  int number;  // among all registers of the entry
};

struct Parameter {
  Type type;
  size_t at, bytes;
};

// A variable in global or shared memory.
struct Variable {
  Type type;
  size_t align = 1, bytes = 0;
  bool external = false;
  std::vector<unsigned char> value;  // global: what it holds at first; empty for zeros
  uint64_t address = 0;
};

// An operand: a register, a number, a name, a list `{..}`, an address `[..+offset]`, or two joined by `|`.
struct Operand {
  enum Form { REGISTER, NUMBER, NAME, LIST, ADDRESS, PAIR } form = NUMBER;
  Register reg{};
  uint64_t bits = 0;
  char written = 'i';  // a number: 'i'nteger, 'f' 0f.., 'd' 0d..
  std::string name;
  std::vector<Operand> of;
  int64_t offset = 0;
};

struct Statement {
  int line = 0;
  int guard = -1;  // number of the predicate
  bool negated = false;
  std::vector<std::string> op;  // between the dots
  std::string text;
  std::vector<Operand> operands;
};

struct Entry {
  std::string name;
  int line = 0;
  std::map<std::string, Parameter> parameters;
  std::vector<size_t> sizes;  // of the parameters, in order
  size_t parameter_bytes = 0;
  std::vector<Type> registers;
  std::map<std::string, size_t> labels;  // the statement that follows
  std::vector<Statement> statements;
  std::map<std::string, Variable> shared;
  size_t static_shared = 0;
  unsigned maxntid[3] = {0, 0, 0}, reqntid[3] = {0, 0, 0}, minnctapersm = 0, maxnreg = 0;
  bool dynamic = false;  // names memory that is `.extern .shared`
};

struct Text {
  int version = 0, target = 0;
  bool alone = false;  // for that chip and no other, as in sm_90a
  std::map<std::string, Entry> entries;
  std::map<std::string, Variable> global, shared;
};

class Parser {
 public:
  explicit Parser(const char* text) : all_(tokens(text)) {}

  Text module() {
    Text out;
    while (!peek().empty()) {
      const std::string word = next();
      if (word == ".version") out.version = (int)(atof(next().c_str()) * 10 + .5);
      else if (word == ".target") {
        const std::string chip = next();
        if (chip.rfind("sm_", 0)) fail("an unknown target " + chip);
        out.target = atoi(chip.c_str() + 3);
        out.alone = chip.back() == 'a';
        if (peek() == ",") fail("options of .target are not known");
      } else if (word == ".address_size") {
        if (next() != "64") fail("addresses have 64 bits");
      } else if (word == ".visible" || word == ".weak") continue;
      else if (word == ".entry") entry(out);
      else if (word == ".global" || word == ".const") {
        auto [name, variable] = this->variable(false);
        out.global[name] = variable;
      } else if (word == ".shared" || word == ".extern") {
        if (word == ".extern") want(".shared");
        auto [name, variable] = this->variable(word == ".extern");
        out.shared[name] = variable;
      } else fail("unknown directive " + word);
    }
    if (!out.version || !out.target) fail("no .version or no .target");
    return out;
  }

 private:
  std::vector<Token> all_;
  size_t at_ = 0;
  Entry* entry_ = nullptr;
  struct Scope {
    std::map<std::string, Register> names;
    std::map<std::string, std::pair<int, Register>> ranges;  // %f<12>: how many, the first
  };
  std::vector<Scope> scopes_;

  [[noreturn]] void fail(const std::string& why) const { throw Invalid{all_[at_ ? at_ - 1 : 0].line, why}; }
  const std::string& peek() const { return all_[at_].text; }
  const std::string& next() {
    if (all_[at_].text.empty()) fail("the text ends too early");
    return all_[at_++].text;
  }
  bool take(const char* text) {
    if (peek() != text) return false;
    at_++;
    return true;
  }
  void want(const char* text) {
    const std::string got = next();
    if (got != text) fail(std::string("wanted '") + text + "', got '" + got + "'");
  }
  unsigned count() {
    const std::string word = next();
    char* end;
    const unsigned long n = strtoul(word.c_str(), &end, 0);
    if (*end || word.empty()) fail("wanted a number, got '" + word + "'");
    return (unsigned)n;
  }
  Type type() {
    Type type;
    const std::string word = next();
    if (word[0] != '.' || !is_type(word.substr(1), type)) fail("wanted a type, got '" + word + "'");
    return type;
  }

  // .align 4 .u32 name[8] = 3; the directive before is read.
  std::pair<std::string, Variable> variable(bool external) {
    Variable v;
    v.external = external;
    if (take(".align")) v.align = count();
    v.type = type();
    const size_t each = (size_t)v.type.bytes();
    if (v.align < each) v.align = each;
    const std::string name = next();
    v.bytes = each;
    if (take("[")) {
      v.bytes = peek() == "]" ? 0 : each * count();
      want("]");
    }
    if (v.bytes == 0 && !external) fail("an array without size");
    if (take("=")) {
      const Operand n = operand();
      if (n.form != Operand::NUMBER || v.bytes != each) fail("a value that is not one number");
      v.value.resize(each);
      memcpy(v.value.data(), &n.bits, each);
    }
    want(";");
    return {name, v};
  }

  void entry(Text& module) {
    const std::string name = next();
    if (module.entries.count(name)) fail("two entries " + name);
    Entry& e = module.entries[name];
    entry_ = &e;
    e.name = name;
    e.line = all_[at_ - 1].line;
    if (take("("))
      while (!take(")")) {
        want(".param");
        size_t align = 1, n = 1;
        if (take(".align")) align = count();
        const Type of = type();
        const std::string named = next();
        if (take("[")) n = count(), want("]");
        if (align < (size_t)of.bytes()) align = (size_t)of.bytes();
        const size_t at = (e.parameter_bytes + align - 1) / align * align, bytes = n * (size_t)of.bytes();
        e.parameters[named] = {of, at, bytes};
        e.sizes.push_back(bytes);
        e.parameter_bytes = at + bytes;
        if (peek() != ")") want(",");
      }
    if (e.parameter_bytes > 4096) fail("more than 4 KiB of parameters");
    while (peek() != "{") {
      const std::string word = next();
      if (word == ".maxntid" || word == ".reqntid") {
        unsigned* of = word == ".maxntid" ? e.maxntid : e.reqntid;
        of[0] = count(), of[1] = of[2] = 1;
        for (int i = 1; i < 3 && take(","); i++) of[i] = count();
      } else if (word == ".minnctapersm") e.minnctapersm = count();
      else if (word == ".maxnreg") e.maxnreg = count();
      else fail("unknown directive " + word);
    }
    want("{");
    body(module);
    for (auto& [_, v] : e.shared) {
      e.static_shared = (e.static_shared + v.align - 1) / v.align * v.align;
      v.address = e.static_shared;
      e.static_shared += v.bytes;
    }
  }

  void body(Text& module) {
    Entry& e = *entry_;
    scopes_.assign(1, {});
    while (!scopes_.empty()) {
      if (take("{")) scopes_.emplace_back();
      else if (take("}")) scopes_.pop_back();
      else if (take(";")) continue;
      else if (take(".reg")) registers();
      else if (take(".shared")) {
        auto [name, v] = variable(false);
        e.shared[name] = v;
      } else if (take(".pragma")) {
        if (next() != "\"nounroll\"") fail("unknown pragma");
        want(";");
      } else if (peek()[0] == '.') next(), fail("unknown directive " + all_[at_ - 1].text);
      else if (all_[at_ + 1].text == ":" && peek() != "@") {
        const std::string label = next();
        want(":");
        if (!e.labels.emplace(label, e.statements.size()).second) fail("two labels " + label);
      } else statement();
    }
    (void)module;
  }

  void registers() {
    const Type of = type();
    do {
      const std::string name = next();
      if (name[0] != '%' && !isalpha((unsigned char)name[0])) fail("no name of a register: " + name);
      const Register first = {of, (int)entry_->registers.size()};
      int n = 1;
      if (take("<")) {
        n = (int)count();
        want(">");
        scopes_.back().ranges[name] = {n, first};
      } else scopes_.back().names[name] = first;
      entry_->registers.insert(entry_->registers.end(), (size_t)n, of);
    } while (take(","));
    want(";");
  }

  bool find(const std::string& name, Register& found) const {
    const size_t digits = name.find_last_not_of("0123456789") + 1;
    for (size_t s = scopes_.size(); s-- > 0;) {
      auto exact = scopes_[s].names.find(name);
      if (exact != scopes_[s].names.end()) return found = exact->second, true;
      auto range = digits < name.size() ? scopes_[s].ranges.find(name.substr(0, digits)) : scopes_[s].ranges.end();
      if (range == scopes_[s].ranges.end()) continue;
      const int i = atoi(name.c_str() + digits);
      if (i >= range->second.first) return false;
      found = range->second.second;
      found.number += i;
      return true;
    }
    return false;
  }

  Register predicate() {
    Register r;
    const std::string name = next();
    if (!find(name, r) || r.type.kind != 'p') fail(name + " is no predicate");
    return r;
  }

  void statement() {
    Statement s;
    if (take("@")) {
      s.negated = take("!");
      s.guard = predicate().number;
    }
    s.line = all_[at_].line;
    s.text = next();
    for (size_t from = 0; from <= s.text.size();) {
      const size_t dot = std::min(s.text.find('.', from), s.text.size());
      s.op.push_back(s.text.substr(from, dot - from));
      from = dot + 1;
    }
    while (!take(";")) {
      s.operands.push_back(operand());
      if (peek() != ";") want(",");
    }
    entry_->statements.push_back(std::move(s));
  }

  Operand operand() {
    Operand o;
    if (take("{")) {
      o.form = Operand::LIST;
      do o.of.push_back(operand());
      while (take(","));
      want("}");
      return o;
    }
    if (take("[")) {
      o.form = Operand::ADDRESS;
      o.of.push_back(operand());
      if (take("+")) {
        const Operand by = operand();
        if (by.form != Operand::NUMBER) fail("an offset that is not a number");
        o.offset = (int64_t)by.bits;
      }
      want("]");
      return o;
    }
    const bool minus = take("-");
    const std::string word = next();
    if (isdigit((unsigned char)word[0])) {
      char* end;
      if (word.size() == 10 && (word[1] == 'f' || word[1] == 'F')) o.written = 'f', o.bits = strtoull(word.c_str() + 2, &end, 16);
      else if (word.size() == 18 && (word[1] == 'd' || word[1] == 'D'))
        o.written = 'd', o.bits = strtoull(word.c_str() + 2, &end, 16);
      else {
        o.bits = strtoull(word.c_str(), &end, 0);
        if (*end == 'U') end++;
      }
      if (*end || (minus && o.written != 'i')) fail("an unknown number '" + word + "'");
      if (minus) o.bits = (uint64_t) - (int64_t)o.bits;
      return o;
    }
    if (minus) fail("a minus before '" + word + "'");
    o.name = word;
    o.form = Operand::NAME;
    if (entry_ && find(word, o.reg)) o.form = Operand::REGISTER;
    else if (word[0] == '%' && word.find('.') == std::string::npos && word != "%laneid" && word != "%warpid")
      fail("no register " + word);
    if (take("|")) {
      Operand pair;
      pair.form = Operand::PAIR;
      pair.of = {o, operand()};
      return pair;
    }
    return o;
  }
};

}  // namespace ptx
