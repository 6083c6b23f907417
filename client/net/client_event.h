#pragma once

#include <nlohmann/json.hpp>  // a member holds a JSON value
#include <string>
#include <utility>

namespace fl {

/// Something a person or a script may want to know. Never holds examples, weights or keys.
///
/// Names: connecting, connected, promise, disconnected, fetching, training, trained, secure_step, failed, stopped, sent, settled, paused, resumed, warning, finished.
class ClientEvent {
 public:
  // A constructor on purpose: events are made in coroutines (see fl_core/wire/message.h).
  ClientEvent(std::string name_of_event, std::string line, nlohmann::json more = nlohmann::json::object())
      : name(std::move(name_of_event)), text(std::move(line)), facts(std::move(more)) {}

  std::string name;
  std::string text;       ///< one line
  nlohmann::json facts;   ///< what --json shows beside the name
};

}  // namespace fl
