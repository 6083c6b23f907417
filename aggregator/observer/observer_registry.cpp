#include "aggregator/observer/observer.h"

namespace fl {

ObserverRegistry& observers() {
  static ObserverRegistry registry("observer");
  return registry;
}

}  // namespace fl
