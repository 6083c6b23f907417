#include "simulations/mpi/cluster.h"

#include <algorithm>
#include <cstring>

#include "fl_core/base/error.h"

namespace fl {
namespace {

/// How often a waiting engine looks at should_stop.
constexpr auto kStopPoll = std::chrono::milliseconds(50);
/// How long ranks have to say good-bye. A launcher that was interrupted kills all of them a second later.
constexpr auto kFarewell = std::chrono::seconds(10);
constexpr auto kHastyFarewell = std::chrono::milliseconds(500);

}  // namespace

Cluster::Cluster(Communicator& communicator, std::size_t workers, std::function<bool()> should_stop)
    : communicator_(communicator), own_workers_(workers), should_stop_(std::move(should_stop)), peers_(communicator.size() - 1) {
  communicator_.set_give_up([this] { return gives_up(); });
  thread_ = std::thread([this] { communicate(); });
}

Cluster::~Cluster() {
  if (thread_.joinable()) end();
}

/// Asked by the thread while it waits for a rank in the middle of something.
bool Cluster::gives_up() {
  const auto now = Watch::Clock::now();
  const std::lock_guard lock(mutex_);
  if (!ending_ && should_stop_ && should_stop_()) ending_ = now + kHastyFarewell;
  return ending_ && now > *ending_;
}

std::string Cluster::name_of(std::size_t rank) const {
  const std::string& host = peers_[rank - 1].host;
  return "rank " + std::to_string(rank) + (host.empty() ? "" : " on " + host);
}

void Cluster::command(std::function<void()> action) {
  {
    const std::lock_guard lock(mutex_);
    commands_.push_back(std::move(action));
  }
  wake_.notify_one();
}

void Cluster::wait_until(const std::function<bool()>& done) {
  std::unique_lock lock(mutex_);
  while (!done()) {
    if (error_) std::rethrow_exception(error_);
    if (should_stop_ && should_stop_()) throw Interrupted("the run was interrupted");
    progress_.wait_for(lock, kStopPoll);
  }
}

void Cluster::announce(const std::string& document, const std::string& source, const std::string& version) {
  command([=, this] { post_to_all(LetterWriter(Topic::begin).text(document).text(source).text(version)); });
}

void Cluster::await_ready(const std::string& data_fingerprint) {
  wait_until([this] { return std::all_of(peers_.begin(), peers_.end(), [](const Peer& peer) { return peer.ready; }); });
  const std::lock_guard lock(mutex_);
  for (std::size_t rank = 1; rank <= peers_.size(); ++rank) {
    if (peers_[rank - 1].data == data_fingerprint) continue;
    throw ConfigError(name_of(rank) + ": data: the files differ from those of rank 0 on " + communicator_.host() + "; give every machine the same files");
  }
}

std::string Cluster::description() const {
  const std::lock_guard lock(mutex_);
  std::string text = std::to_string(ranks()) + " ranks: " + std::to_string(own_workers_);
  for (const Peer& peer : peers_) text += " + " + std::to_string(peer.workers);
  std::vector<std::string> hosts{communicator_.host()};
  for (const Peer& peer : peers_) hosts.push_back(peer.host);
  std::sort(hosts.begin(), hosts.end());
  const auto machines = std::unique(hosts.begin(), hosts.end()) - hosts.begin();
  return text + " workers on " + std::to_string(machines) + (machines == 1 ? " machine" : " machines");
}

std::size_t Cluster::workers() const {
  const std::lock_guard lock(mutex_);
  std::size_t all = own_workers_;
  for (const Peer& peer : peers_) all += peer.workers;
  return all;
}

void Cluster::start(InProcess& in_process, const ClusterRun& run) {
  in_process.share_with(this, workers() - own_workers_);
  in_process.ring_when_idle([this] { jobs_changed(); });
  command([this, run, &in_process] {
    if (run.sums) total_ = AlignedArray<std::int64_t>(run.parameters);
    post_to_all(LetterWriter(Topic::start).number(run.sums ? 1 : 0).number(run.parameters).number(run.max_updates).number(static_cast<std::uint64_t>(run.bound_bits)).text(run.plan));
    in_process_ = &in_process;
  });
}

void Cluster::leave() {
  // The thread may be in the middle of a turn that uses the transport.
  bool left = false;
  command([&] {
    in_process_ = nullptr;
    const std::lock_guard lock(mutex_);
    left = true;
  });
  std::unique_lock lock(mutex_);
  progress_.wait(lock, [&] { return left || thread_is_over_; });
}

/// The parts of an evaluation that are measured here, and those of the other ranks.
class Cluster::Measuring final : public PendingEvaluation {
 public:
  Measuring(Cluster& cluster, std::unique_ptr<PendingEvaluation> ours) : cluster_(cluster), ours_(std::move(ours)) {}

  bool ready() override {
    if (!ours_->ready()) return false;
    const std::lock_guard lock(cluster_.mutex_);
    return cluster_.measuring_ == 0 || cluster_.error_;
  }

  Evaluation result() override {
    Evaluation sums = ours_->result();
    cluster_.wait_until([this] { return cluster_.measuring_ == 0; });
    const std::lock_guard lock(cluster_.mutex_);
    sums.merge(cluster_.measured_);
    return sums;
  }

 private:
  Cluster& cluster_;
  std::unique_ptr<PendingEvaluation> ours_;
};

std::unique_ptr<PendingEvaluation> Cluster::begin_evaluation(const SharedBuffer& weights, std::size_t parts,
                                                             const std::function<std::unique_ptr<PendingEvaluation>(std::size_t, std::size_t)>& ours) {
  const std::size_t all = workers();
  std::size_t before = own_workers_;
  const auto share_up_to = [&](std::size_t workers) { return parts * workers / all; };
  const std::size_t our_count = share_up_to(before);
  std::vector<std::pair<std::size_t, std::size_t>> shares;
  {
    const std::lock_guard lock(mutex_);
    for (const Peer& peer : peers_) {
      const std::size_t first = share_up_to(before);
      before += peer.workers;
      shares.emplace_back(first, share_up_to(before) - first);
    }
    measuring_ = peers_.size();
    measured_ = {};
  }
  command([this, shares, weights] {
    // The next round's tasks are about the same weights.
    if (!have(weights)) send_weights(weights);
    for (std::size_t i = 0; i < shares.size(); ++i) communicator_.post(i + 1, LetterWriter(Topic::evaluate).number(shares[i].first).number(shares[i].second).finish());
  });
  return std::make_unique<Measuring>(*this, ours(0, our_count));
}

PartialSum Cluster::gather(std::uint32_t round, const ExactSum& ours) {
  {
    const std::lock_guard lock(mutex_);
    summing_ = peers_.size() + 1;
    terms_ = ours.terms();
    weight_ = ours.total_weight();
  }
  command([this, round, &ours] {
    post_to_all(LetterWriter(Topic::sum).number(round));
    communicator_.sum(ours.raw(), total_.span());
    const std::lock_guard lock(mutex_);
    --summing_;
  });
  wait_until([this] { return summing_ == 0; });
  return {total_.span(), terms_, weight_};
}

void Cluster::jobs_changed() {
  {
    const std::lock_guard lock(mutex_);
    jobs_ = true;
  }
  wake_.notify_one();
}

void Cluster::withdraw(std::uint32_t round) {
  command([this, round] { post_to_all(LetterWriter(Topic::withdraw).number(round)); });
}

std::string Cluster::end() {
  const bool hasty = should_stop_ && should_stop_();
  {
    const std::lock_guard lock(mutex_);
    const Watch::Clock::duration limit = hasty ? kHastyFarewell : kFarewell;
    ending_ = Watch::Clock::now() + limit;
  }
  command([this] { post_to_all(LetterWriter(Topic::end)); });
  std::string silent;
  {
    std::unique_lock lock(mutex_);
    const auto all_said_bye = [this] { return std::all_of(peers_.begin(), peers_.end(), [](const Peer& peer) { return peer.bye; }); };
    progress_.wait_until(lock, *ending_, [&] { return all_said_bye() || thread_is_over_; });
    stop_thread_ = true;
    for (std::size_t rank = 1; rank <= peers_.size(); ++rank) {
      if (!peers_[rank - 1].bye) silent += (silent.empty() ? "" : ", ") + name_of(rank);
    }
  }
  wake_.notify_one();
  thread_.join();
  return silent;
}

void Cluster::communicate() {
  try {
    for (;;) {
      {
        const std::lock_guard lock(mutex_);
        if (stop_thread_) return;
      }
      turn();
    }
  } catch (...) {
    report(std::current_exception());
    const std::lock_guard lock(mutex_);
    thread_is_over_ = true;
    progress_.notify_all();
  }
}

/// The run cannot go on; whoever waits learns why. The thread goes on, to say good-bye to the other ranks.
void Cluster::report(std::exception_ptr error) {
  if (in_process_ != nullptr) in_process_->fail(error);
  const std::lock_guard lock(mutex_);
  if (!error_) error_ = std::move(error);
  progress_.notify_all();
}

/// One look at everything, and a nap when there was nothing.
void Cluster::turn() {
  bool busy = false;
  for (auto received = communicator_.poll(); received; received = communicator_.poll()) {
    receive(received->from, LetterReader(received->letter));
    busy = true;
  }
  std::unique_lock lock(mutex_);
  while (!commands_.empty()) {
    const auto action = std::move(commands_.front());
    commands_.pop_front();
    lock.unlock();
    action();
    lock.lock();
    busy = true;
  }
  const bool lend = std::exchange(jobs_, false) || busy;
  lock.unlock();
  if (busy) progress_.notify_all();
  if (lend && in_process_ != nullptr) {
    for (std::size_t rank = 1; rank <= peers_.size(); ++rank) busy |= lend_to(rank);
  }
  if (watch_.tick()) post_to_all(LetterWriter(Topic::alive));
  check_silence();
  if (busy) return patience_.something_happened();
  const auto nap = communicator_.sending() ? Patience::kShortest : patience_.sleep(in_process_ != nullptr && in_process_->busy());
  lock.lock();
  wake_.wait_for(lock, nap, [this] { return !commands_.empty() || jobs_ || stop_thread_; });
}

void Cluster::receive(std::size_t from, LetterReader letter) {
  Peer& peer = peers_[from - 1];
  peer.heard = watch_.now();
  switch (letter.topic()) {
    case Topic::answers:
      while (!letter.done()) {
        auto [ticket, result] = letter.result();
        --peer.outstanding;
        if (result.error) result.error = error_with(name_of(from), result.error);
        if (in_process_ != nullptr) in_process_->give_back(ticket, std::move(result));
      }
      return;
    case Topic::failed: return report(error_with(name_of(from), letter.error()));
    case Topic::alive: return;
    default: break;
  }
  const std::lock_guard lock(mutex_);
  switch (letter.topic()) {
    case Topic::ready:
      peer.host = letter.text();
      peer.workers = letter.number();
      peer.data = letter.text();
      peer.ready = true;
      return;
    case Topic::summed:
      terms_ += letter.number();
      weight_ += letter.number();
      --summing_;
      return;
    case Topic::measured:
      measured_.merge(letter.evaluation());
      --measuring_;
      return;
    case Topic::bye: peer.bye = true; return;
    default: throw ProtocolError(name_of(from) + " sent a letter that rank 0 does not know; do all ranks run the same build of fl?");
  }
}

void Cluster::check_silence() {
  for (std::size_t rank = 1; rank <= peers_.size(); ++rank) {
    Peer& peer = peers_[rank - 1];
    if (!peer.ready || peer.bye || watch_.now() - peer.heard < Watch::kSilence) continue;
    peer.heard = watch_.now();
    report(std::make_exception_ptr(RankLost(name_of(rank) + " has been silent for " + std::to_string(Watch::kSilence.count()) + " s: it died, or its machine or the network did; finished rounds are kept, 'fl resume' goes on")));
  }
}

/// Grants shrink as the work does (half of the rank's fair share of what is queued), so that all ranks finish together.
bool Cluster::lend_to(std::size_t rank) {
  Peer& peer = peers_[rank - 1];
  if (peer.outstanding > peer.workers + peer.granted / 4) return false;
  const std::size_t all = workers();
  const InProcess::Backlog backlog = in_process_->backlog();
  // The last jobs are for whoever is idle first.
  const std::int64_t fair = backlog.jobs < all ? 0 : backlog.cost * static_cast<std::int64_t>(peer.workers) / static_cast<std::int64_t>(2 * all);
  LetterWriter letter(Topic::jobs);
  std::int64_t cost = 0;
  std::size_t granted = 0;
  bool empty = true;
  while (peer.outstanding < peer.workers || cost < fair) {
    const auto job = in_process_->lend(rank, peer.outstanding >= 2 * peer.workers);
    if (!job) break;
    const bool about_weights = job->task.type() == MessageType::train || job->task.type() == MessageType::evaluate;
    if (about_weights && !have(job->task.body())) {
      // Tasks refer to the newest weights: those before this one go ahead.
      if (!std::exchange(empty, true)) communicator_.post(rank, std::exchange(letter, LetterWriter(Topic::jobs)).finish());
      send_weights(job->task.body());
    }
    letter.number(job->ticket).number(job->client).number(job->sums ? 1 : 0).message(job->task, !about_weights);
    empty = false;
    cost += job->cost;
    ++granted;
    ++peer.outstanding;
  }
  if (granted == 0) return false;
  peer.granted = granted;
  communicator_.post(rank, letter.finish());
  return true;
}

/// Whether all ranks have these weights.
bool Cluster::have(const SharedBuffer& weights) {
  const auto wanted = weights.span();
  const auto known = weights_.span();
  if (wanted.size() != known.size() || known.empty()) return false;
  if (wanted.data() == known.data()) return true;
  if (std::memcmp(wanted.data(), known.data(), wanted.size()) != 0) return false;
  weights_ = weights;  // the next question will be about the same copy of them
  return true;
}

void Cluster::send_weights(const SharedBuffer& weights) {
  weights_ = weights;
  const auto bytes = weights.span();
  post_to_all(LetterWriter(Topic::weights).number(bytes.size()));
  // At rank 0 a broadcast only reads.
  communicator_.broadcast({const_cast<std::byte*>(bytes.data()), bytes.size()});
}

void Cluster::post_to_all(const LetterWriter& letter) {
  for (std::size_t rank = 1; rank <= peers_.size(); ++rank) {
    if (!peers_[rank - 1].bye) communicator_.post(rank, LetterWriter(letter).finish());
  }
}

}  // namespace fl
