// gRPC's load of tools/compare/grpc: so many calls in flight on so many connections, each made again as it is answered.
//
//     client async|callback THREADS PORT CA CERTIFICATE KEY CONNECTIONS IN_FLIGHT WARM_UP_SECONDS SECONDS REQUEST_BYTES
//
// Prints "CALLS_A_SECOND P50_US P99_US CPU_SECONDS": the client's processor time, user and system, of the measured seconds.
#include <grpcpp/grpcpp.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "common.h"
#include "echo.grpc.pb.h"

namespace {

using Clock = std::chrono::steady_clock;
std::atomic<bool> isMeasuring{false}, isOver{false};
std::atomic<int> underWay{0};

double cpuSeconds() {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/// Latencies in microseconds; callbacks of several threads share it.
class Latencies {
  public:
    void add(Clock::time_point start) {
        auto micros = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count() * 1e-3f;
        std::lock_guard<std::mutex> guard(lock_);
        values_.push_back(micros);
    }
    std::vector<float> take() {
        std::lock_guard<std::mutex> guard(lock_);
        return std::move(values_);
    }

  private:
    std::mutex lock_;
    std::vector<float> values_;
};

/// One of the calls in flight.
class Caller {
  public:
    Caller(peer::Echo::Stub *stub, grpc::CompletionQueue *queue, const std::string &id, Latencies *latencies)
        : stub_(stub), queue_(queue), latencies_(latencies) {
        request_.set_id(id);
    }

    void begin() {
        context_ = std::make_unique<grpc::ClientContext>();
        start_ = Clock::now();
        if (queue_) {
            reader_ = stub_->AsyncDescribe(context_.get(), request_, queue_);
            reader_->Finish(&answer_, &status_, this);
        } else {
            stub_->async()->Describe(context_.get(), &request_, &answer_, [this](grpc::Status status) {
                status_ = std::move(status);
                end();
            });
        }
    }

    void end() {
        if (!status_.ok()) {
            std::cerr << status_.error_message() << "\n";
            std::_Exit(1);
        }
        if (isMeasuring.load(std::memory_order_relaxed)) latencies_->add(start_);
        if (isOver.load(std::memory_order_relaxed)) {
            underWay.fetch_sub(1);
            return;
        }
        begin();
    }

  private:
    peer::Echo::Stub *stub_;
    grpc::CompletionQueue *queue_;
    Latencies *latencies_;
    peer::Request request_;
    peer::Answer answer_;
    grpc::Status status_;
    std::unique_ptr<grpc::ClientContext> context_;
    std::unique_ptr<grpc::ClientAsyncResponseReader<peer::Answer>> reader_;
    Clock::time_point start_;
};

}  // namespace

int main(int count, char **arguments) {
    if (count != 12) {
        std::cerr << "usage: client async|callback THREADS PORT CA CERTIFICATE KEY CONNECTIONS IN_FLIGHT WARM_UP_SECONDS "
                     "SECONDS REQUEST_BYTES\n";
        return 64;
    }
    const bool isAsync = std::string(arguments[1]) == "async";
    const int threads = std::stoi(arguments[2]), connections = std::stoi(arguments[7]), inFlight = std::stoi(arguments[8]);
    const std::chrono::duration<double> warmUp(std::stod(arguments[9])), seconds(std::stod(arguments[10]));
    const std::string id(std::stoi(arguments[11]), 'v');
    const auto credentials = grpc::SslCredentials({contents(arguments[4]), contents(arguments[6]), contents(arguments[5])});

    std::vector<std::unique_ptr<grpc::CompletionQueue>> queues;
    for (int i = 0; isAsync && i < threads; i++) queues.push_back(std::make_unique<grpc::CompletionQueue>());
    std::vector<std::unique_ptr<peer::Echo::Stub>> stubs;
    std::vector<std::unique_ptr<Latencies>> latencies;
    std::vector<std::unique_ptr<Caller>> callers;
    for (int i = 0; i < connections; i++) {
        grpc::ChannelArguments channel;
        channel.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // else all channels share one connection
        stubs.push_back(peer::Echo::NewStub(
            grpc::CreateCustomChannel("127.0.0.1:" + std::string(arguments[3]), credentials, channel)));
        latencies.push_back(std::make_unique<Latencies>());
        for (int j = 0; j < inFlight; j++) {
            callers.push_back(std::make_unique<Caller>(
                stubs.back().get(), isAsync ? queues[i % queues.size()].get() : nullptr, id, latencies.back().get()));
        }
    }
    std::vector<std::thread> workers;
    for (auto &queue : queues) {
        workers.emplace_back([&queue] {
            void *tag;
            bool ok;
            while (queue->Next(&tag, &ok)) static_cast<Caller *>(tag)->end();
        });
    }
    underWay = static_cast<int>(callers.size());
    for (auto &caller : callers) caller->begin();

    std::this_thread::sleep_for(warmUp);
    isMeasuring = true;
    const auto cpu = cpuSeconds();
    const auto start = Clock::now();
    std::this_thread::sleep_for(seconds);
    isMeasuring = false;
    const std::chrono::duration<double> elapsed = Clock::now() - start;
    const auto used = cpuSeconds() - cpu;
    isOver = true;
    for (int i = 0; underWay.load() > 0 && i < 1000; i++) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    for (auto &queue : queues) queue->Shutdown();
    for (auto &worker : workers) worker.join();

    std::vector<float> all;
    for (auto &some : latencies) {
        auto values = some->take();
        all.insert(all.end(), values.begin(), values.end());
    }
    if (all.empty()) return 1;
    std::sort(all.begin(), all.end());
    std::printf("%.0f %.1f %.1f %.3f\n", all.size() / elapsed.count(), all[all.size() / 2], all[all.size() * 99 / 100], used);
    return 0;
}
