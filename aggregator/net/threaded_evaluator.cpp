#include "aggregator/net/threaded_evaluator.h"

#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "fl_core/base/error.h"
#include "fl_core/ml/batches.h"

namespace fl {

class ThreadedEvaluator::Running final : public PendingEvaluation {
 public:
  Running(ThreadedEvaluator& evaluator, const SharedBuffer& weights)
      : evaluator_(evaluator), weights_(weights), sums_(evaluation_parts(evaluator.test_->size())), working_(evaluator.models_.size()) {
    for (auto& model : evaluator_.models_) threads_.emplace_back([this, &model] { work(model); });
  }
  ~Running() override {
    next_ = sums_.size();
    join();
  }

  bool ready() override { return working_ == 0; }

  Evaluation result() override {
    join();
    if (failure_) std::rethrow_exception(failure_);
    Evaluation all;
    for (const Evaluation& one : sums_) all.merge(one);
    return all;
  }

 private:
  void work(std::unique_ptr<Model>& model) {
    try {
      if (evaluator_.setup_) evaluator_.setup_();
      if (!model) model = evaluator_.make_model_();
      const auto bytes = weights_.span();
      FL_CHECK(model->weights().size_bytes() == bytes.size(), "weights of another model");
      std::memcpy(model->weights().data(), bytes.data(), bytes.size());
      for (std::size_t part = next_++; part < sums_.size(); part = next_++) sums_[part] = evaluate_part(*model, *evaluator_.test_, part);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
      next_ = sums_.size();
    }
    --working_;
  }

  void join() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  ThreadedEvaluator& evaluator_;
  SharedBuffer weights_;
  std::vector<Evaluation> sums_;  ///< a part
  std::atomic<std::size_t> next_ = 0;
  std::atomic<std::size_t> working_;
  std::mutex mutex_;
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

ThreadedEvaluator::ThreadedEvaluator(std::function<std::unique_ptr<Model>()> make_model, std::shared_ptr<const Dataset> test, std::size_t workers, std::function<void()> setup)
    : make_model_(std::move(make_model)), test_(std::move(test)), models_(workers), setup_(std::move(setup)) {}

std::unique_ptr<PendingEvaluation> ThreadedEvaluator::begin(const SharedBuffer& weights) { return std::make_unique<Running>(*this, weights); }

}  // namespace fl
